/** Keys and values of the tokens so far: buffers that are written in place, and grow by blocks. */
import { zeros } from "../create.js";
import type { Device } from "../device.js";
import { session } from "../native.js";
import { keep, scope } from "../scope.js";
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

  /**
   * @internal A layer of rows of others, each with its last `length` tokens; zeros stand before a row that has fewer.
   * Call it in a scope.
   */
  static ofRuns(runs: readonly LayerRun[], length: number): LayerCache {
    const [first] = runs as [LayerRun, ...LayerRun[]];
    const batch = runs.reduce((sum, { count }) => sum + count, 0);
    const made = new LayerCache({ ...first.layer.shape, batch }, first.layer.limit);
    const [k, v] = (["k", "v"] as const).map((name) => {
      const [start, ...rest] = runs.map((run) => run.layer.#rows(name, run, length)) as [Tensor, ...Tensor[]];
      return rest.length === 0 ? start : start.concat(rest, 0);
    }) as [Tensor, Tensor];
    made.append(k, v);
    return made;
  }

  /** The last `length` tokens of neighbouring rows, [count, length, heads, headDim]. */
  #rows(name: "k" | "v", { row, count }: LayerRun, length: number): Tensor {
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

/** A row of a cache. */
export interface CachedRow {
  cache: KeyValueCache;
  row: number;
}

/** Neighbouring rows of a layer. */
interface LayerRun {
  layer: LayerCache;
  row: number;
  count: number;
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

  /**
   * A cache of rows of others, in the order given, each with its last `length` tokens; zeros stand before a row that
   * has fewer. The caches that the rows come from are freed, layer by layer. Call it in a scope.
   */
  static ofRows(rows: readonly CachedRow[], length: number): KeyValueCache {
    const runs: { cache: KeyValueCache; row: number; count: number }[] = [];
    for (const { cache, row } of rows) {
      const last = runs.at(-1);
      if (last?.cache === cache && last.row + last.count === row) last.count++;
      else runs.push({ cache, row, count: 1 });
    }
    const [first] = rows as [CachedRow, ...CachedRow[]];
    const made = new KeyValueCache(0, 0, { batch: 0, heads: 0, headDim: 0, device: "auto" });
    for (const i of first.cache.layers.keys()) {
      const own = runs.map(({ cache, row, count }) => ({ layer: cache.layers[i] as LayerCache, row, count }));
      made.layers.push(scope(() => LayerCache.ofRuns(own, length)));
      for (const { layer } of own) layer.dispose();
    }
    return made;
  }

  dispose(): void {
    for (const layer of this.layers) layer.dispose();
  }
}
