/** A model's tokenizer, as its `tokenizer.json` has it. */
import type * as Binding from "../../native/binding.js";
import type { Encoded, Parts } from "../data/encode.js";
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

/** A model's tokenizer, as its `tokenizer.json` has it. */
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

  /** Token ids of each text, in parallel and away from this thread. */
  async encodeAll(texts: readonly string[], { addSpecialTokens = true } = {}): Promise<Int32Array[]> {
    const rows = await this.encodeRows(texts, { addSpecialTokens });
    return rows.map(({ ids }) => ids.slice());
  }

  /**
   * @internal The first `limit` token ids of each text, of which no more is encoded than they need, and how many it
   * has in all: an estimate where it was not read to its end. In parallel and away from this thread.
   */
  async encodeRows(
    texts: readonly string[],
    {
      addSpecialTokens = true,
      limit = Infinity,
    }: { addSpecialTokens?: boolean | undefined; limit?: number | undefined } = {},
  ): Promise<Encoded[]> {
    const most = Number.isFinite(limit) ? limit : undefined;
    const all = settled(await this.#native.encodeAll([...texts], addSpecialTokens, most));
    const end = (i: number): number => (i < 0 ? 0 : (all.ends[i] as number));
    return Array.from(all.totals, (total, i) => ({ ids: all.ids.subarray(end(i - 1), end(i)), total }));
  }

  /** @internal How to encode a running text in parts; undefined where only a whole text has its ids. */
  get parts(): Parts | undefined {
    const own = this.#native;
    if (!own.knowsSeams()) return undefined;
    const [before, after] = own.frame();
    return {
      frame: [Int32Array.from(before as number[]), Int32Array.from(after as number[])],
      lastSeam: (text) => own.lastSeam(text) ?? -1,
      encode: async (part, first) => settled(await own.encodePart(part, first)),
    };
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

  /** The id of a token, as the vocabulary spells it; undefined where it has none. */
  tokenToId(token: string): number | undefined {
    return this.#native.tokenToId(token) ?? undefined;
  }

  /** How many tokens there are, added ones among them. */
  get vocabSize(): number {
    return this.#native.vocabSize();
  }
}
