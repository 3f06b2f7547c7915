/** Runs on several devices: the losses of one device, the same bits twice, and the same values everywhere. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions, type TrainEvent } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const both = ["cpu", "gpu"];
const options = (
  device: string | readonly string[],
  more: Partial<FinetuneOptions> = {},
): FinetuneOptions & { output: string } =>
  ({ ...quick(given, "cpu", more), device }) as FinetuneOptions & { output: string };

const losses = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event.loss] : []));
const norms = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event.gradNorm] : []));
const recorded = (output: string): Record<string, unknown> =>
  (JSON.parse(readFileSync(join(output, "run.json"), "utf8")) as { options: Record<string, unknown> })
    .options;

/** Returns rows with labels, of many lengths. */
function labelled(): string {
  const file = join(temporary(), "labels.jsonl");
  const line = (i: number): string =>
    JSON.stringify({ text: "abcdefgh ".repeat(1 + ((i * 5) % 7)), label: i % 3 === 0 ? "yes" : "no" });
  writeFileSync(file, `${Array.from({ length: 30 }, (_, i) => line(i)).join("\n")}\n`);
  return file;
}

const CASES: Record<string, Partial<FinetuneOptions>> = {
  "micro-batches of one row": { batchSize: 1, gradientAccumulation: 5 },
  "shares of 3 to 1, and a short last step of an epoch": {
    deviceShares: [3, 1],
    batchSize: 3,
    gradientAccumulation: 3,
  },
  "packed rows": { packing: true, maxLength: 48, lora: { r: 2 } },
  "gradient checkpointing and LoRA+": {
    gradientCheckpointing: true,
    optimizer: { lr: 1e-2, loraPlusRatio: 4 },
  },
  "an initialisation that changes the base weights": { lora: { r: 4, initLoraWeights: "pissa" } },
  "labelled rows": { data: labelled() },
};

if (testDevices().length > 1) {
  for (const [name, more] of Object.entries(CASES)) {
    test.serial(`two devices give the losses of one, and the same bits twice: ${name}`, async (t) => {
      const { deviceShares = [1, 1], ...same } = more;
      const alone = await collect(finetune(options("cpu", same)));
      const [first, second] = [1, 2].map(() => options(both, { ...same, deviceShares }));
      const [once, twice] = [await collect(finetune(first!)), await collect(finetune(second!))];
      t.is(losses(once).length, 12);
      t.deepEqual(losses(once), losses(twice));
      t.true(adapterBytes(first!.output).equals(adapterBytes(second!.output)));
      // Sums of f32 in another order.
      for (const [step, loss] of losses(once).entries())
        t.true(
          Math.abs(loss - losses(alone)[step]!) <= 1e-6 * Math.max(1, losses(alone)[step]!),
          `${step + 1}: ${loss} ${losses(alone)[step]}`,
        );
      for (const [step, norm] of norms(once).entries())
        t.true(
          Math.abs(norm - norms(alone)[step]!) <= 1e-4 * norms(alone)[step]!,
          `${step + 1}: ${norm} ${norms(alone)[step]}`,
        );
    });
  }
}
