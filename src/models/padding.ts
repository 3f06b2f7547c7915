/** Left padding of the shorter texts of a batch: its mask, and the positions of the tokens after it. */
import { tensor } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { keep } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ForwardOptions } from "./pretrained.js";

/** Mask widths are multiples of this number of tokens. */
const BLOCK = 256;

/** The left padding of each row of a batch. Where there is none, forward needs neither a mask nor positions. */
export class Padding {
  #mask: Tensor | undefined;

  /** `pads` are the padding tokens before each row. */
  constructor(readonly pads: readonly number[]) {}

  /** Returns the mask and positions for `T` new tokens after `before` cached ones. */
  buildInputs(before: number, T: number, device: Device): ForwardOptions {
    if (this.pads.every((pad) => pad === 0)) return {};
    const positions = this.pads.flatMap((pad) =>
      Array.from({ length: T }, (_, t) => Math.max(0, before + t - pad)),
    );
    const positionIds = tensor(Int32Array.from(positions), { shape: [this.pads.length, T], device });
    return { attentionMask: this.#buildMask(before + T, device), positionIds };
  }

  /** i32 [n, at least `length`], 0 for padding. Causal masking hides the columns after `length`. */
  #buildMask(length: number, device: Device): Tensor {
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
