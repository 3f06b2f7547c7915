/** What runs through the blocks of a model: a tensor, and a branch that is still to be added to it. */
import type { Module } from "../nn/module.js";
import { LayerNorm, RMSNorm } from "../nn/norm.js";
import type { Tensor } from "../tensor.js";

/** x + added. Whoever reads it next makes the sum: a norm in the same pass over memory. */
export interface Stream {
  readonly x: Tensor;
  readonly added?: Tensor | undefined;
}

type Norm = Module & { forward(x: Tensor): Tensor };

/** The sum, and `norm` of it. */
export function normed(norm: Norm, { x, added }: Stream): [sum: Tensor, y: Tensor] {
  if (added === undefined) return [x, norm.forward(x)];
  if (norm instanceof RMSNorm || norm instanceof LayerNorm) return norm.forwardAdded(x, added);
  const sum = x.add(added);
  return [sum, norm.forward(sum)];
}

/** `norm` of the sum at the end of the stream, which is let go of. */
export function ended(norm: Norm, stream: Stream): Tensor {
  const [sum, y] = normed(norm, stream);
  if (stream.added !== undefined) sum.dispose();
  stream.added?.dispose();
  return y;
}

export function joined({ x, added }: Stream): Tensor {
  return added === undefined ? x : x.add(added);
}

interface Block<A extends unknown[]> {
  forward(x: Tensor, ...rest: A): Tensor;
  run(stream: Stream, ...rest: A): Stream;
}

/** What `block` makes of the stream: by `run`, unless a `forward` other than its class's `own` stands in its place. */
export function through<A extends unknown[]>(
  block: Block<A>,
  own: (x: Tensor, ...rest: A) => Tensor,
  stream: Stream,
  ...rest: A
): Stream {
  return block.forward === own ? block.run(stream, ...rest) : { x: block.forward(joined(stream), ...rest) };
}
