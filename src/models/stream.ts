/** The residual stream of a model: a tensor, and a branch not yet added to it. */
import { Module } from "../nn/module.js";
import { LayerNorm, RMSNorm } from "../nn/norm.js";
import type { Tensor } from "../tensor/tensor.js";

/** The value x + added. The next reader computes the sum; a norm does so in the same pass over memory. */
export interface Stream {
  readonly x: Tensor;
  readonly added?: Tensor | undefined;
}

type Norm = Module & { forward(x: Tensor): Tensor };

/** Returns the sum and its norm. */
export function normaliseSum(norm: Norm, { x, added }: Stream): [sum: Tensor, y: Tensor] {
  if (added === undefined) return [x, norm.forward(x)];
  if (norm instanceof RMSNorm || norm instanceof LayerNorm) return norm.forwardAdded(x, added);
  const sum = x.add(added);
  return [sum, norm.forward(sum)];
}

/** Returns the norm of the final sum, and frees the sum. */
export function normaliseEnd(norm: Norm, stream: Stream): Tensor {
  const [sum, y] = normaliseSum(norm, stream);
  if (stream.added !== undefined) sum.dispose();
  stream.added?.dispose();
  return y;
}

export function sumStream({ x, added }: Stream): Tensor {
  return added === undefined ? x : x.add(added);
}

/** A block that adds to the residual stream. */
export abstract class ResidualBlock<Inputs extends unknown[] = []> extends Module {
  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor, ...inputs: Inputs): Tensor {
    return sumStream(this.run({ x }, ...inputs));
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  abstract run(stream: Stream, ...inputs: Inputs): Stream;
}

/** Runs `block` on the stream: by `run`, or by `forward` where a user has overridden it. */
export function runBlock<Inputs extends unknown[]>(
  block: ResidualBlock<Inputs>,
  stream: Stream,
  ...inputs: Inputs
): Stream {
  if (block.forward === ResidualBlock.prototype.forward) return block.run(stream, ...inputs);
  return { x: block.forward(sumStream(stream), ...inputs) };
}
