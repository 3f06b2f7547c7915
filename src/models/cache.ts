/** The KV cache: keys and values in buffers that are written in place and grow by blocks. */
import { zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { session } from "../native/binding.js";
import { keep, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

/** Capacities are multiples of this number of tokens. */
const BLOCK = 256;

/** The shape of one layer's buffers, [batch, tokens, heads, headDim], and their device. */
export interface CacheShape {
  batch: number;
  heads: number;
  headDim: number;
  device: Device;
}

/** Keys and values of one layer. The model creates and extends it; `generate` owns it. */
export class LayerCache {
  /** @internal Tokens stored so far. */
  length = 0;
  #capacity = 0;
  #k: Tensor | undefined;
  #v: Tensor | undefined;

  /** @internal `limit` is the maximum number of tokens. */
  constructor(
    /** @internal */
    readonly shape: CacheShape,
    /** @internal */
    readonly limit: number,
  ) {}

  /** @internal Appends k and v [B, T, Hkv, D]. */
  append(k: Tensor, v: Tensor): { k: Tensor; v: Tensor; length: number } {
    const T = k.shape[1] as number;
    const buffers = this.reserveBuffers(T);
    session().cacheWrite(buffers.k.id, k.id, this.length);
    session().cacheWrite(buffers.v.id, v.id, this.length);
    this.length += T;
    return { ...buffers, length: this.length };
  }

  /**
   * @internal Returns the buffers with room for `count` tokens, for a fused block of the engine that writes k and v
   * itself.
   */
  reserveBuffers(count: number): { k: Tensor; v: Tensor } {
    this.#reserve(this.length + count);
    return { k: this.#k as Tensor, v: this.#v as Tensor };
  }

  /** Grows the buffers to `needed` tokens, by at least a quarter, so that copying is amortised constant per token. */
  #reserve(needed: number): void {
    if (needed <= this.#capacity) return;
    const least = Math.max(needed, Math.ceil(this.#capacity * 1.25));
    const capacity = Math.max(needed, Math.min(Math.ceil(least / BLOCK) * BLOCK, this.limit));
    this.#k = this.#enlarge(this.#k, capacity);
    this.#v = this.#enlarge(this.#v, capacity);
    this.#capacity = capacity;
  }

  #enlarge(old: Tensor | undefined, capacity: number): Tensor {
    const { batch, heads, headDim, device } = this.shape;
    const buffer = zeros([batch, capacity, heads, headDim], { device });
    keep(buffer);
    if (old !== undefined) {
      session().cacheWrite(buffer.id, old.id, 0);
      old.dispose();
    }
    return buffer;
  }

  /**
   * @internal Builds a layer from rows of other layers, with the last `length` tokens of each; shorter rows are padded
   * with zeros on the left. Call it in a scope.
   */
  static fromRuns(runs: readonly LayerRun[], length: number): LayerCache {
    const [first] = runs as [LayerRun, ...LayerRun[]];
    const batch = runs.reduce((sum, { count }) => sum + count, 0);
    const cache = new LayerCache({ ...first.layer.shape, batch }, first.layer.limit);
    const [k, v] = (["k", "v"] as const).map((name) => {
      const [start, ...rest] = runs.map((run) => run.layer.#sliceRows(name, run, length)) as [
        Tensor,
        ...Tensor[],
      ];
      return rest.length === 0 ? start : start.concat(rest, 0);
    }) as [Tensor, Tensor];
    cache.append(k, v);
    return cache;
  }

  /** The last `length` tokens of consecutive rows, [count, length, heads, headDim]. */
  #sliceRows(name: "k" | "v", { row, count }: LayerRun, length: number): Tensor {
    const buffer = (name === "k" ? this.#k : this.#v) as Tensor;
    const { heads, headDim, device } = this.shape;
    const tokens = buffer.slice(0, row, row + count).slice(1, Math.max(0, this.length - length), this.length);
    const missing = length - this.length;
    return missing > 0 ? zeros([count, missing, heads, headDim], { device }).concat(tokens, 1) : tokens;
  }

  /** @internal Frees the buffers. */
  dispose(): void {
    this.#k?.dispose();
    this.#v?.dispose();
  }
}

/** A row of a KV cache. */
export interface CachedRow {
  cache: KeyValueCache;
  row: number;
}

/** Consecutive rows of a layer. */
interface LayerRun {
  layer: LayerCache;
  row: number;
  count: number;
}

/** The KV cache of all layers, with `length` tokens in each. */
export class KeyValueCache {
  layers: LayerCache[];

  /** `limit` is the maximum number of tokens of each text. */
  constructor(layers: number, limit: number, shape: CacheShape) {
    this.layers = Array.from({ length: layers }, () => new LayerCache(shape, limit));
  }

  get length(): number {
    return this.layers[0]?.length ?? 0;
  }

  /**
   * Builds a cache from rows of other caches, in the given order, with the last `length` tokens of each; shorter rows
   * are padded with zeros on the left. Frees the source caches, layer by layer. Call it in a scope.
   */
  static fromRows(rows: readonly CachedRow[], length: number): KeyValueCache {
    const runs: { cache: KeyValueCache; row: number; count: number }[] = [];
    for (const { cache, row } of rows) {
      const last = runs.at(-1);
      if (last?.cache === cache && last.row + last.count === row) last.count++;
      else runs.push({ cache, row, count: 1 });
    }
    const [first] = rows as [CachedRow, ...CachedRow[]];
    const cache = new KeyValueCache(0, 0, { batch: 0, heads: 0, headDim: 0, device: "auto" });
    for (const i of first.cache.layers.keys()) {
      const layerRuns = runs.map(({ cache, row, count }) => ({
        layer: cache.layers[i] as LayerCache,
        row,
        count,
      }));
      cache.layers.push(scope(() => LayerCache.fromRuns(layerRuns, length)));
      for (const { layer } of layerRuns) layer.dispose();
    }
    return cache;
  }

  dispose(): void {
    for (const layer of this.layers) layer.dispose();
  }
}
