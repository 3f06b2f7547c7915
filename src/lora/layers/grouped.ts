/** Expands the shared A of a grouped convolution to all channels. */
import { zeros } from "../../tensor/create.js";
import type { Tensor } from "../../tensor/tensor.js";

/** Expands A [r, in / groups, *k] to [r·groups, in, *k]: block j covers the channels of group j, zero elsewhere. The caller owns the result. */
export function expandAcrossGroups(loraA: Tensor, groups: number): Tensor {
  const [r = 1, channels = 1, ...kernel] = loraA.shape;
  const { device } = loraA;
  const [first, ...rest] = Array.from({ length: groups }, (_, g) => {
    const before = zeros([r, g * channels, ...kernel], { device });
    return before.concat([loraA, zeros([r, (groups - 1 - g) * channels, ...kernel], { device })], 1);
  });
  return (first as Tensor).concat(rest, 0);
}
