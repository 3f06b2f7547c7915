/** A batch of texts being decoded: a KV cache, left padding for the shorter texts, and a sampler. */
import { tensor } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import type { Tensor } from "../tensor/tensor.js";
import { KeyValueCache } from "./cache.js";
import { Padding } from "./padding.js";
import { type SampledText, Sampler } from "./sampler.js";

/** A row of a batch. */
export interface BatchRow {
  batch: TextBatch;
  row: number;
}

export class TextBatch {
  private constructor(
    readonly cache: KeyValueCache,
    readonly padding: Padding,
    readonly sampler: Sampler,
  ) {}

  /** Creates a batch of prompts with an empty cache from `createCache`. `vocabulary` is the number of logits. */
  static fromPrompts(
    texts: readonly SampledText[],
    vocabulary: number,
    device: Device,
    createCache: (texts: number) => KeyValueCache,
  ): TextBatch {
    const longest = findLongest(texts);
    const sampler = Sampler.create(texts, vocabulary, device);
    return new TextBatch(
      createCache(texts.length),
      new Padding(texts.map(({ prompt }) => longest - prompt.length)),
      sampler,
    );
  }

  /**
   * Combines rows of other batches, in the given order, with as little padding as possible. Frees those batches. Call
   * it in a scope.
   */
  static fromRows(places: readonly BatchRow[]): TextBatch {
    const lengths = places.map(({ batch, row }) => batch.cache.length - (batch.padding.pads[row] as number));
    const longest = Math.max(...lengths);
    const cache = KeyValueCache.fromRows(
      places.map(({ batch, row }) => ({ cache: batch.cache, row })),
      longest,
    );
    const sampler = Sampler.fromRows(places.map(({ batch, row }) => ({ sampler: batch.sampler, row })));
    for (const batch of new Set(places.map(({ batch }) => batch))) batch.dispose();
    return new TextBatch(cache, new Padding(lengths.map((length) => longest - length)), sampler);
  }

  get rows(): number {
    return this.padding.pads.length;
  }

  dispose(): void {
    this.cache.dispose();
    this.padding.dispose();
    this.sampler.dispose();
  }
}

/** Pads prompts on the left into ids i32 [n, T]. Padding is masked. */
export function padPrompts(texts: readonly SampledText[], device: Device): Tensor {
  const length = findLongest(texts);
  const ids = new Int32Array(texts.length * length);
  for (const [row, { prompt }] of texts.entries()) ids.set(prompt, (row + 1) * length - prompt.length);
  return tensor(ids, { shape: [texts.length, length], device });
}

function findLongest(texts: readonly SampledText[]): number {
  return Math.max(0, ...texts.map(({ prompt }) => prompt.length));
}
