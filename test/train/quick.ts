/** A run that takes seconds. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { FinetuneOptions, TrainEvent } from "../../src/index.js";
import { temporary } from "../hashed.js";

/** Returns options of a run with a model and its data on a device: 12 steps of 2 × 2 rows. */
export function quick(
  given: Pick<FinetuneOptions, "model" | "data">,
  device: string,
  more: Partial<FinetuneOptions> = {},
): FinetuneOptions {
  return {
    ...given,
    device,
    output: join(temporary(), "out"),
    lora: { r: 4 },
    optimizer: { lr: 1e-2 },
    batchSize: 2,
    gradientAccumulation: 2,
    steps: 12,
    ...more,
  };
}

export async function collect<E = TrainEvent>(run: AsyncIterable<E>): Promise<E[]> {
  const events: E[] = [];
  for await (const event of run) events.push(event);
  return events;
}

export function adapterBytes(folder: string): Buffer {
  return readFileSync(join(folder, "adapter_model.safetensors"));
}
