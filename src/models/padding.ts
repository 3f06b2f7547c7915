/** Padding on the left of the shorter prompts of a batch: what hides it, and where its tokens stand. */
import { tensor } from "../create.js";
import type { Device } from "../device.js";
import { keep } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { ForwardOptions } from "./pretrained.js";

/** Tokens that a mask is made longer by. */
const BLOCK = 256;

/** Of the texts of a batch, each with its length. Without padding nothing is hidden, and forward needs no inputs. */
export class Padding {
  /** Tokens of the longest prompt. */
  readonly length: number;
  #pads: number[];
  #mask: Tensor | undefined;

  constructor(lengths: readonly number[]) {
    this.length = Math.max(0, ...lengths);
    this.#pads = lengths.map((length) => this.length - length);
  }

  /** The prompts as rows of one length. What stands in the padding is never seen. */
  padded(prompts: readonly Int32Array[]): Int32Array {
    const ids = new Int32Array(prompts.length * this.length);
    for (const [row, prompt] of prompts.entries()) ids.set(prompt, (row + 1) * this.length - prompt.length);
    return ids;
  }

  /** Keeps the rows given, without what is padding in all of them; gives how many tokens that is. */
  select(rows: readonly number[]): number {
    const pads = rows.map((row) => this.#pads[row] as number);
    const start = Math.min(...pads);
    this.#pads = pads.map((pad) => pad - start);
    this.dispose();
    return start;
  }

  /** What forward is told of `T` tokens that follow `before` others. */
  inputs(before: number, T: number, device: Device): ForwardOptions {
    if (this.#pads.every((pad) => pad === 0)) return {};
    const positions = this.#pads.flatMap((pad) =>
      Array.from({ length: T }, (_, t) => Math.max(0, before + t - pad)),
    );
    const positionIds = tensor(Int32Array.from(positions), { shape: [this.#pads.length, T], device });
    return { attentionMask: this.#maskOf(before + T, device), positionIds };
  }

  /** i32 [n, at least `length`]: 0 in the padding. Those after `length` are hidden by causality. */
  #maskOf(length: number, device: Device): Tensor {
    if (this.#mask !== undefined && (this.#mask.shape[1] as number) >= length) return this.#mask;
    const width = Math.ceil(length / BLOCK) * BLOCK;
    const mask = new Int32Array(this.#pads.length * width).fill(1);
    for (const [row, pad] of this.#pads.entries()) mask.fill(0, row * width, row * width + pad);
    this.#mask?.dispose();
    this.#mask = tensor(mask, { shape: [this.#pads.length, width], device });
    keep(this.#mask);
    return this.#mask;
  }

  dispose(): void {
    this.#mask?.dispose();
    this.#mask = undefined;
  }
}
