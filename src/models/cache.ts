/** Keys and values of the tokens so far: buffers of fixed capacity, written in place. */
import { zeros } from "../create.js";
import type { Device } from "../device.js";
import { session } from "../native.js";
import { keep } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** One layer's buffers. */
export class LayerCache {
  length = 0;
  readonly #k: Tensor;
  readonly #v: Tensor;

  constructor(batch: number, capacity: number, heads: number, headDim: number, device: Device) {
    this.#k = zeros([batch, capacity, heads, headDim], { device });
    this.#v = zeros([batch, capacity, heads, headDim], { device });
    keep(this.#k);
    keep(this.#v);
  }

  /** Writes k and v [B, T, Hkv, D] after what is there. */
  append(k: Tensor, v: Tensor): { k: Tensor; v: Tensor; length: number } {
    session().cacheWrite(this.#k.id, k.id, this.length);
    session().cacheWrite(this.#v.id, v.id, this.length);
    this.length += k.shape[1] as number;
    return { k: this.#k, v: this.#v, length: this.length };
  }

  /** For what writes k and v by itself: the engine's own record of a block. */
  get buffers(): { k: Tensor; v: Tensor } {
    return { k: this.#k, v: this.#v };
  }

  dispose(): void {
    this.#k.dispose();
    this.#v.dispose();
  }
}

/** The buffers of all layers; `length` tokens are in them. */
export class KeyValueCache {
  readonly layers: LayerCache[];

  constructor(
    layers: number,
    readonly capacity: number,
    shape: { batch: number; heads: number; headDim: number; device: Device },
  ) {
    this.layers = Array.from(
      { length: layers },
      () => new LayerCache(shape.batch, capacity, shape.heads, shape.headDim, shape.device),
    );
  }

  get length(): number {
    return this.layers[0]?.length ?? 0;
  }

  dispose(): void {
    for (const layer of this.layers) layer.dispose();
  }
}
