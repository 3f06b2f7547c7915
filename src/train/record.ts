/** What a step records, whether a device runs it or only counts its memory. */
import type { Optimizer } from "../optim/optimizer.js";
import { noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** Records forward and backward of a part of a step's loss; gives the sum of the parts so far, in the place of `sum`. */
export function recordPart(loss: () => Tensor, sum: Tensor | undefined): Tensor {
  const part = scope(() => {
    const part = loss();
    part.backward();
    return part.detach();
  });
  if (sum === undefined) return part;
  const total = noGrad(() => sum.add(part));
  for (const one of [sum, part]) one.dispose();
  return total;
}

/** Records the update by what was gathered, and lets go of it; gives the norm of the gradients. */
export function recordUpdate(optimizer: Optimizer, clipNorm: number | undefined): Tensor {
  const norm = optimizer.stepLatched(clipNorm);
  optimizer.zeroGrad();
  return norm;
}
