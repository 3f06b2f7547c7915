/** A model's tokenizer, as its `tokenizer.json` has it. */
import type * as Binding from "../../native/binding.js";
import type { Encoded } from "../data/encode.js";
import { call, guarded, native, settled } from "../native.js";

/** Text of token ids that come one by one. */
export interface DecodeStream {
  /** The text that `id` completes, which may be none. */
  push(id: number): string;
  /** Whether the last ids may be a part of a letter. */
  held(): boolean;
  /** What was held back, once nothing follows: bytes that are no letter are replacement characters. */
  rest(): string;
}

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

  /**
   * Decodes ids as they come after `context`, each at the same cost however many there were. `push` gives the text
   * that an id completes, which may be none: a token may be a part of a letter, and one that the tokenizer does not
   * know has no text. `held` says whether the last ids may be such a part, and `rest` gives what they are if nothing
   * follows. All pieces together are what `decode` makes of all ids after what it makes of the context; but of a run
   * of tokens for single bytes which as a whole is no UTF-8, letters that were whole when they came stay.
   */
  decodeStream(context: ArrayLike<number> = [], { skipSpecialTokens = true } = {}): DecodeStream {
    const before = context instanceof Int32Array ? context : Int32Array.from(context);
    return guarded(this.#native.decodeStream(before, skipSpecialTokens));
  }

  tokenToId(token: string): number | undefined {
    return this.#native.tokenToId(token) ?? undefined;
  }

  get vocabSize(): number {
    return this.#native.vocabSize();
  }
}
