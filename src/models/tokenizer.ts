/** A model's tokenizer, as its `tokenizer.json` has it. */
import type * as Binding from "../../native/binding.js";
import type { Encoded } from "../data/encode.js";
import { call, guarded, native, settled } from "../native.js";

export class Tokenizer {
  readonly #native: Binding.Tokenizer;
  /** The file that it was read from. */
  readonly path: string;

  /** Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`. */
  constructor(path: string) {
    this.path = path;
    this.#native = guarded(call(() => native().Tokenizer.fromFile(path)));
  }

  /** Token ids of `text`, with the special tokens that the tokenizer adds unless told otherwise. */
  encode(text: string, { addSpecialTokens = true } = {}): Int32Array {
    return this.#native.encode(text, addSpecialTokens);
  }

  /** Token ids of each text, worked out on a thread of its own. */
  async encodeAll(texts: readonly string[], { addSpecialTokens = true } = {}): Promise<Int32Array[]> {
    const { ids, ends } = settled(await this.#native.encodeAll([...texts], addSpecialTokens));
    return Array.from(ends, (end, i) => ids.slice(i === 0 ? 0 : ends[i - 1], end));
  }

  /** @internal The first `limit` token ids of each text, and how many it has. */
  async encodeRows(
    texts: readonly string[],
    { addSpecialTokens = true, limit = Infinity }: { addSpecialTokens?: boolean; limit?: number } = {},
  ): Promise<Encoded[]> {
    const all = await this.encodeAll(texts, { addSpecialTokens });
    return all.map((ids) => ({ ids: ids.subarray(0, limit), total: ids.length }));
  }

  /** Text of token ids. */
  decode(ids: ArrayLike<number>, { skipSpecialTokens = true } = {}): string {
    return this.#native.decode(ids instanceof Int32Array ? ids : Int32Array.from(ids), skipSpecialTokens);
  }

  tokenToId(token: string): number | undefined {
    return this.#native.tokenToId(token) ?? undefined;
  }

  get vocabSize(): number {
    return this.#native.vocabSize();
  }
}
