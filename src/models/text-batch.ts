/** Texts that are decoded side by side: one cache of keys and values, the shorter texts padded on the left. */
import { tensor } from "../create.js";
import type { Device } from "../device.js";
import type { Tensor } from "../tensor.js";
import { KeyValueCache } from "./cache.js";
import { Padding } from "./padding.js";

/** A row of a batch. */
export interface Place {
  batch: TextBatch;
  row: number;
}

export class TextBatch {
  private constructor(
    readonly cache: KeyValueCache,
    readonly padding: Padding,
  ) {}

  /** A batch of prompts over an empty cache; `newCache` makes one for `texts` texts. */
  static ofPrompts(prompts: readonly Int32Array[], newCache: (texts: number) => KeyValueCache): TextBatch {
    const longest = longestOf(prompts);
    return new TextBatch(
      newCache(prompts.length),
      new Padding(prompts.map(({ length }) => longest - length)),
    );
  }

  /**
   * A batch of rows of other batches, in the order given, without padding that all of them share. The caches of
   * those batches are freed. Call it in a scope.
   */
  static ofRows(places: readonly Place[]): TextBatch {
    const lengths = places.map(({ batch, row }) => batch.cache.length - (batch.padding.pads[row] as number));
    const longest = Math.max(...lengths);
    const cache = KeyValueCache.ofRows(
      places.map(({ batch, row }) => ({ cache: batch.cache, row })),
      longest,
    );
    for (const { batch } of places) batch.padding.dispose();
    return new TextBatch(cache, new Padding(lengths.map((length) => longest - length)));
  }

  get rows(): number {
    return this.padding.pads.length;
  }

  dispose(): void {
    this.cache.dispose();
    this.padding.dispose();
  }
}

/** Prompts as rows of one length, i32 [n, T]. Padding is never seen. */
export function paddedPrompts(prompts: readonly Int32Array[], device: Device): Tensor {
  const length = longestOf(prompts);
  const ids = new Int32Array(prompts.length * length);
  for (const [row, prompt] of prompts.entries()) ids.set(prompt, (row + 1) * length - prompt.length);
  return tensor(ids, { shape: [prompts.length, length], device });
}

function longestOf(prompts: readonly Int32Array[]): number {
  return Math.max(0, ...prompts.map(({ length }) => length));
}
