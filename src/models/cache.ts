/** Keys and values of the tokens so far: buffers that are written in place, and grow by blocks. */
import { zeros } from "../create.js";
import type { Device } from "../device.js";
import { session } from "../native.js";
import { keep } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** Tokens that a buffer is made longer by, at least. */
const BLOCK = 256;

/** What the buffers of one layer are: [batch, tokens, heads, headDim] on `device`. */
export interface CacheShape {
  batch: number;
  heads: number;
  headDim: number;
  device: Device;
}

/** Keys and values of one layer, which `generate` keeps; made and grown by the model. */
export class LayerCache {
  /** @internal Tokens that are in it. */
  length = 0;
  #capacity = 0;
  #k: Tensor | undefined;
  #v: Tensor | undefined;

  /** @internal `limit` is the most tokens that will ever be in it. */
  constructor(
    /** @internal */
    readonly shape: CacheShape,
    /** @internal */
    readonly limit: number,
  ) {}

  /** @internal Writes k and v [B, T, Hkv, D] after what is there. */
  append(k: Tensor, v: Tensor): { k: Tensor; v: Tensor; length: number } {
    const T = k.shape[1] as number;
    const buffers = this.buffersFor(T);
    session().cacheWrite(buffers.k.id, k.id, this.length);
    session().cacheWrite(buffers.v.id, v.id, this.length);
    this.length += T;
    return { ...buffers, length: this.length };
  }

  /** @internal The buffers, with room for `more` tokens: for what writes k and v by itself, the engine's own record of a block. */
  buffersFor(more: number): { k: Tensor; v: Tensor } {
    this.#reserve(this.length + more);
    return { k: this.#k as Tensor, v: this.#v as Tensor };
  }

  /**
   * Longer buffers in the place of those that are too short. By a quarter at least, so that copying is a constant
   * share of the work however long the text grows.
   */
  #reserve(needed: number): void {
    if (needed <= this.#capacity) return;
    const least = Math.max(needed, Math.ceil(this.#capacity * 1.25));
    const capacity = Math.max(needed, Math.min(Math.ceil(least / BLOCK) * BLOCK, this.limit));
    this.#k = this.#longer(this.#k, capacity);
    this.#v = this.#longer(this.#v, capacity);
    this.#capacity = capacity;
  }

  #longer(old: Tensor | undefined, capacity: number): Tensor {
    const { batch, heads, headDim, device } = this.shape;
    const buffer = zeros([batch, capacity, heads, headDim], { device });
    keep(buffer);
    if (old !== undefined) {
      session().cacheWrite(buffer.id, old.id, 0);
      old.dispose();
    }
    return buffer;
  }

  /** @internal The tokens from `start` on of the texts `rows`, in this order, as a cache of their own; this one is let go of. */
  selected(rows: readonly number[], start: number): LayerCache {
    const next = new LayerCache({ ...this.shape, batch: rows.length }, this.limit);
    const [k, v] = [this.#k, this.#v].map((buffer) => {
      const [first, ...rest] = rows.map((row) => buffer?.slice(0, row, row + 1).slice(1, start, this.length));
      return first?.concat(rest as Tensor[], 0);
    });
    if (k !== undefined && v !== undefined) next.append(k, v);
    this.dispose();
    return next;
  }

  /** @internal Frees the buffers. */
  dispose(): void {
    this.#k?.dispose();
    this.#v?.dispose();
  }
}

/** The buffers of all layers; `length` tokens are in them. */
export class KeyValueCache {
  layers: LayerCache[];

  /** At most `limit` tokens of each text will be in it. */
  constructor(layers: number, limit: number, shape: CacheShape) {
    this.layers = Array.from({ length: layers }, () => new LayerCache(shape, limit));
  }

  get length(): number {
    return this.layers[0]?.length ?? 0;
  }

  /** Keeps the texts `rows` alone, without their tokens before `start`. Call it in a scope. */
  select(rows: readonly number[], start: number): void {
    this.layers = this.layers.map((layer) => layer.selected(rows, start));
  }

  dispose(): void {
    for (const layer of this.layers) layer.dispose();
  }
}
