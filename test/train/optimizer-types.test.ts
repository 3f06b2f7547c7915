/**
 * The optimizers that `finetune` takes by name: each trains, resumes bit-identically, and refuses options it lacks.
 */
import { join } from "node:path";

import test from "ava";
import { finetune, LowrankError, type FinetuneOptions } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2 }, steps: 6, saveEvery: 2, keep: 9, ...more }) as never;

for (const type of ["adamw", "adam", "sgd", "adafactor", "lion"] as const) {
  test(`${type} trains, and a resumed run is bit-identical to an uninterrupted one`, async (t) => {
    const optimizer = { type, lr: 1e-2 };
    const whole = options({ optimizer });
    const { loss } = await finetune(whole).result;
    t.true(Number.isFinite(loss));
    const still = options({ optimizer: { type, lr: 0 } });
    await finetune(still).result;
    t.false(adapterBytes(whole.output).equals(adapterBytes(still.output)));
    // The checkpoint records its optimizer.
    const output = join(temporary(), "out");
    await finetune({ resume: join(whole.output, "checkpoint-2"), output }).result;
    t.true(adapterBytes(output).equals(adapterBytes(whole.output)));
  });
}

test("the optimizer of a run cannot change when it is resumed", async (t) => {
  const run = options({ optimizer: { type: "lion" }, steps: 2 });
  await finetune(run).result;
  const changed = finetune({ resume: join(run.output, "checkpoint-2"), optimizer: { type: "adam" } });
  await t.throwsAsync(changed.result, {
    code: "ERR_OPTION",
    message: /optimizer.type was lion, and is adam now/,
  });
});

test("options that an optimizer lacks are refused by name", async (t) => {
  const cases: [optimizer: object, message: RegExp][] = [
    [{ type: "adamx" }, /^optimizer.type must be one of adamw, adam, sgd, adafactor, lion, got "adamx"/],
    [
      { type: "adafactor", betas: [0.9, 0.99] },
      /^optimizer.betas has no effect with the optimizer adafactor/,
    ],
    [{ type: "lion", eps: 1e-8 }, /^optimizer.eps has no effect with the optimizer lion/],
    [{ type: "sgd", betas: [0.9, 0.99] }, /^optimizer.betas has no effect with the optimizer sgd/],
    [{ type: "adamw", momentum: 0.9 }, /^optimizer.momentum has no effect with the optimizer adamw/],
    [{ type: "sgd", momentum: 1 }, /^optimizer.momentum must be at least 0 and below 1, got 1$/],
    [{ type: "lion", betas: [0.9, 1] }, /^optimizer.betas must be two numbers/],
  ];
  for (const [optimizer, message] of cases) {
    const run = finetune(options({ optimizer }));
    await t.throwsAsync(run.result, { instanceOf: LowrankError, code: "ERR_OPTION", message });
  }
});
