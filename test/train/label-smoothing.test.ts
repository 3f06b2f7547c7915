import test from "ava";
import {
  finetune,
  type EvalEvent,
  type FinetuneOptions,
  type StepEvent,
  type TrainEvent,
} from "../../src/index.js";
import { tinyData, tinyModel } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { collect, quick } from "./quick.js";

const encoder = await tinyEncoder();

const tasks: [name: string, given: Pick<FinetuneOptions, "model" | "data">, classes: number][] = [
  ["a language model", { model: tinyModel(), data: tinyData(8) }, 99],
  ["a classifier", { model: encoder, data: rowsFile(seaAndLand(8)) }, 2],
];

async function losses(given: Pick<FinetuneOptions, "model" | "data">, labelSmoothing: number) {
  // At a rate of 0 the model never changes, and each step contains every row.
  const more = {
    labelSmoothing,
    evalData: given.data,
    steps: 1,
    gradientAccumulation: 4,
    optimizer: { lr: 0 },
  };
  const events: TrainEvent[] = await collect(finetune(quick(given, "cpu", more)));
  const [step] = events.filter((event): event is StepEvent => event.type === "step");
  const held = events.filter((event): event is EvalEvent => event.type === "eval");
  return { trained: step?.loss as number, held: held.map(({ loss }) => loss) };
}

for (const [name, given, classes] of tasks) {
  test.serial(`${name}: smoothed in training, but not in evaluations`, async (t) => {
    const [plain, smooth, smoother] = [
      await losses(given, 0),
      await losses(given, 0.1),
      await losses(given, 0.2),
    ];
    t.deepEqual(smooth.held, plain.held);
    // The loss is linear in ε, (1 − ε) · loss + ε · mean over the classes, so only rounding remains.
    t.true(Math.abs(smoother.trained + plain.trained - 2 * smooth.trained) < 1e-5);
    t.true(Math.abs(smooth.trained - plain.trained) > 1e-4, `${classes} classes`);
  });
}

test("a smoothing of 1 or more, or below 0, is refused", async (t) => {
  for (const labelSmoothing of [1, -0.1, Number.NaN]) {
    const run = finetune(quick({ model: encoder, data: "absent.jsonl" }, "cpu", { labelSmoothing }));
    await t.throwsAsync(run.result, { code: "ERR_OPTION", message: /labelSmoothing/ });
  }
});
