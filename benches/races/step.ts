/** Times a training step, turn by turn. */
import { tensor } from "../../src/tensor/create.js";
import type { CausalLM } from "../../src/models/causal-lm.js";
import { AdamW } from "../../src/optim/index.js";
import { scope } from "../../src/tensor/scope.js";
import { formatProfile } from "../../src/cli/finetune/profile.js";
import { Profile } from "../../src/train/profile.js";
import { race } from "./turns.js";

/** `count` ids below `vocabulary`, the same in every run. */
export function hashedIds(count: number, vocabulary: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % vocabulary);
}

export interface StepSize {
  rows: number;
  length: number;
  vocabulary: number;
}

/** Forward, backward, clipping and AdamW on `rows` rows of `length` tokens. */
export function stepper(
  model: CausalLM,
  { rows, length, vocabulary }: StepSize,
): () => Promise<{ loss: number }> {
  model.train();
  const trained = [...model.parameters()].filter((p) => p.requiresGrad);
  const optimizer = new AdamW(trained, { lr: 2e-4, weightDecay: 0.01 });
  const ids = hashedIds(rows * length, vocabulary);
  return async () => {
    const loss = scope(() => {
      const input = tensor(ids, { shape: [rows, length], device: "cpu" });
      const loss = model.loss(input, ids);
      loss.backward();
      return loss.detach();
    });
    const norm = optimizer.stepClipped(1);
    optimizer.zeroGrad();
    const value = await loss.item();
    await norm.item();
    loss.dispose();
    norm.dispose();
    return { loss: value };
  };
}

/**
 * Each turn has an untimed step first, as in a run: after the other sides' turns, seconds later, a device has freed its idle buffers, and their
 * pages must be cleared again. The peers' turns are the same.
 */
export async function raceSteps(model: CausalLM, size: StepSize): Promise<void> {
  const step = stepper(model, size);
  await race(step, step);
}

/** Prints the time of a few steps by operation, and writes a trace for Perfetto to `path`. */
export async function profileSteps(model: CausalLM, size: StepSize, path: string): Promise<void> {
  const step = stepper(model, size);
  await step();
  const profile = new Profile(path);
  profile.start("cpu");
  for (let i = 0; i < 3; i++) await step();
  const told = await profile.finish();
  if (told !== undefined) console.log(formatProfile(told).join("\n"));
}
