/** One training step, timed turn by turn. */
import { tensor } from "../../src/create.js";
import type { CausalLM } from "../../src/models/causal-lm.js";
import { AdamW } from "../../src/optim/index.js";
import { scope } from "../../src/scope.js";
import { race } from "./turns.js";

/** `count` ids below `vocabulary`, always the same. */
export function hashedIds(count: number, vocabulary: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % vocabulary);
}

/** Forward, backward, clipping and AdamW on `rows` rows of `length` tokens. */
export async function raceSteps(
  model: CausalLM,
  { rows, length, vocabulary }: { rows: number; length: number; vocabulary: number },
): Promise<void> {
  model.train();
  const trained = [...model.parameters()].filter((p) => p.requiresGrad);
  const optimizer = new AdamW(trained, { lr: 2e-4, weightDecay: 0.01 });
  const ids = hashedIds(rows * length, vocabulary);
  await race(async () => {
    const loss = scope(() => {
      const input = tensor(ids, { shape: [rows, length], device: "cpu" });
      const loss = model.lossSum(input, ids, 1 / (rows * (length - 1)));
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
  });
}
