/** What runs through the blocks of a model: a tensor, and a branch that is still to be added to it. */
import { Module } from "../nn/module.js";
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

/** A block of a model: what it adds to what runs through it. */
export abstract class ResidualBlock<Inputs extends unknown[] = []> extends Module {
  /** x [B, T, C] → [B, T, C]. */
  forward(x: Tensor, ...inputs: Inputs): Tensor {
    return joined(this.run({ x }, ...inputs));
  }

  /** @internal `forward`, which leaves the last sum to what reads it. */
  abstract run(stream: Stream, ...inputs: Inputs): Stream;
}

/** What `block` makes of the stream: by `run`, unless it has a `forward` of its own. */
export function through<Inputs extends unknown[]>(
  block: ResidualBlock<Inputs>,
  stream: Stream,
  ...inputs: Inputs
): Stream {
  if (block.forward === ResidualBlock.prototype.forward) return block.run(stream, ...inputs);
  return { x: block.forward(joined(stream), ...inputs) };
}
