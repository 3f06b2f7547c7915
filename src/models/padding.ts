/** Padding on the left of the shorter texts of a batch: what hides it, and the positions of the tokens behind it. */
import { tensor } from "../create.js";
import type { Device } from "../device.js";
import { keep } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { ForwardOptions } from "./pretrained.js";

/** Tokens that a mask is made longer by. */
const BLOCK = 256;

/** The padding of each row of a batch. Without any, nothing is hidden, and forward needs no inputs. */
export class Padding {
  #mask: Tensor | undefined;

  /** `pads` are the tokens of padding before each row. */
  constructor(readonly pads: readonly number[]) {}

  /** What forward is told of `T` tokens that follow `before` others. */
  inputs(before: number, T: number, device: Device): ForwardOptions {
    if (this.pads.every((pad) => pad === 0)) return {};
    const positions = this.pads.flatMap((pad) =>
      Array.from({ length: T }, (_, t) => Math.max(0, before + t - pad)),
    );
    const positionIds = tensor(Int32Array.from(positions), { shape: [this.pads.length, T], device });
    return { attentionMask: this.#maskOf(before + T, device), positionIds };
  }

  /** i32 [n, at least `length`]: 0 in the padding. Those after `length` are hidden by causality. */
  #maskOf(length: number, device: Device): Tensor {
    if (this.#mask !== undefined && (this.#mask.shape[1] as number) >= length) return this.#mask;
    const width = Math.ceil(length / BLOCK) * BLOCK;
    const mask = new Int32Array(this.pads.length * width).fill(1);
    for (const [row, pad] of this.pads.entries()) mask.fill(0, row * width, row * width + pad);
    this.#mask?.dispose();
    this.#mask = tensor(mask, { shape: [this.pads.length, width], device });
    keep(this.#mask);
    return this.#mask;
  }

  dispose(): void {
    this.#mask?.dispose();
    this.#mask = undefined;
  }
}
