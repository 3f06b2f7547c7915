/** The output of `devices --tune`. */
import test from "ava";

import { formatTuning } from "../../src/cli/tuning-table.js";
import type { TuneReport } from "../../src/native/binding.js";

const REPORT: TuneReport = {
  device: "gpu:0",
  name: "Model 7",
  used: true,
  file: "/cache/lowrank/tune/model_7.json",
  classes: [
    {
      family: "gemm",
      class: "2048 x 576 x 576, A B^T f32",
      chosen: "tile 8 x 8",
      flops: 1e9,
      forms: [
        { form: "tile 4 x 4", verdict: "right", milliseconds: 2.5 },
        { form: "tile 8 x 8", verdict: "right", milliseconds: 1.25 },
        { form: "tile 1 x 4", verdict: "wrong" },
      ],
    },
    {
      family: "gemm",
      class: "6 x 576 x 576, A B^T f32",
      chosen: "dots 8",
      flops: 1e6,
      forms: [
        { form: "dots 8", verdict: "right", milliseconds: 0.0125 },
        { form: "dots 4", verdict: "slow" },
        { form: "dots 1", verdict: "refused", reason: "no such shader" },
      ],
    },
  ],
  failures: [],
};

test("a line for each class: the time of each variant, the chosen one, and the dropped ones", (t) => {
  t.is(
    formatTuning(REPORT),
    `gpu:0: Model 7
milliseconds per run; * marks the selected variant
gemm 2048 x 576 x 576, A B^T f32  tile 4 x 4 2.50  tile 8 x 8 1.25*  tile 1 x 4 rejected (wrong numbers)
gemm 6 x 576 x 576, A B^T f32     dots 8 0.0125*   dots 4 too slow   dots 1 rejected (refused)
stored in /cache/lowrank/tune/model_7.json
`,
  );
});

test("the location of the file, and whether it is used", (t) => {
  const { file: _, ...nowhere } = REPORT;
  t.regex(
    formatTuning({ ...nowhere, used: false }),
    /\nnot stored: the user has no cache folder; not used on .*on\n$/,
  );
});
