/** A of a grouped convolution, whose groups all meet it, as one over all channels. */
import { zeros } from "../../create.js";
import type { Tensor } from "../../tensor.js";

/** A [r, in / groups, *k] as [r·groups, in, *k], of which block j sees the channels of group j. The result is the caller's. */
export function acrossGroups(loraA: Tensor, groups: number): Tensor {
  const [r = 1, own = 1, ...kernel] = loraA.shape;
  const { device } = loraA;
  const [first, ...rest] = Array.from({ length: groups }, (_, g) => {
    const before = zeros([r, g * own, ...kernel], { device });
    return before.concat([loraA, zeros([r, (groups - 1 - g) * own, ...kernel], { device })], 1);
  });
  return (first as Tensor).concat(rest, 0);
}
