/** The recording of a step, for a device that runs it and for one that only counts memory. */
import type { GradientExchange, Optimizer } from "../optim/optimizer.js";
import type { Replica } from "../optim/replica.js";
import { noGrad, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

/**
 * Records forward and backward of one part of a step's loss. Returns the sum of the parts so far, on the device of the
 * first; disposes `sum`. With `exchange`, the part is the step's last: its backward reads the gradients.
 */
export function recordPart(
  loss: () => Tensor,
  sum: Tensor | undefined,
  exchange?: GradientExchange | undefined,
): Tensor {
  const part = scope(() => {
    const part = loss();
    if (exchange === undefined) part.backward();
    else exchange.backward(part);
    return part.detach();
  });
  return addPart(part, sum);
}

/** Returns the sum of the parts of a step's loss so far, on the device of the first; disposes both. */
export function addPart(part: Tensor, sum: Tensor | undefined): Tensor {
  if (sum === undefined) return part;
  const total = noGrad(() => scope(() => sum.add(part.device === sum.device ? part : part.to(sum.device))));
  for (const tensor of [sum, part]) tensor.dispose();
  return total;
}

/**
 * Records the update and clears the gradients. Gradients of `replicas` are added in their order before, then `sumRanks`
 * records the sum over processes; the values are copied to the replicas afterwards. Returns the norm of the gradients.
 */
export function recordUpdate(
  optimizer: Optimizer,
  clipNorm: number | undefined,
  replicas: readonly Replica[] = [],
  sumRanks: () => void = () => {},
): Tensor {
  for (const replica of replicas) replica.addGradientsTo(optimizer);
  sumRanks();
  const norm = optimizer.stepLatched(clipNorm);
  optimizer.zeroGrad();
  for (const replica of replicas) replica.copyValuesOf(optimizer);
  return norm;
}
