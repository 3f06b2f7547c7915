/** A model's tokenizer, as its `tokenizer.json` has it. */
import type * as Binding from "../../native/binding.js";
import { nativePath } from "../archive.js";
import { flag, listOf, numberThat, options, refuse, text as textOf } from "../argument.js";
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

/** What `encode` and `encodeAll` take besides texts. */
export interface EncodeOptions {
  /** Whether the special tokens are added that the tokenizer puts around a text; true. */
  addSpecialTokens?: boolean | undefined;
}

/** What `decode` and `decodeStream` take besides ids. */
export interface DecodeOptions {
  /** Whether special tokens are left out of the text; true. */
  skipSpecialTokens?: boolean | undefined;
}

/** A model's tokenizer, as its `tokenizer.json` has it. */
export class Tokenizer {
  readonly #native: Binding.Tokenizer;
  /** The file that it was read from. */
  readonly path: string;

  /** Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_OPTION`. */
  constructor(path: string) {
    this.path = textOf("new Tokenizer", "path", path);
    this.#native = guarded(call(() => native().Tokenizer.fromFile(nativePath(path))));
  }

  /** Token ids of `text`, with the special tokens that the tokenizer adds unless told otherwise. Throws `ERR_OPTION`. */
  encode(text: string, given: EncodeOptions = {}): Int32Array {
    textOf("encode", "text", text);
    const addSpecialTokens = switched("encode", "addSpecialTokens", given);
    return this.#native.encode(text, addSpecialTokens);
  }

  /** Token ids of each text, in parallel and away from this thread. Throws `ERR_OPTION`. */
  async encodeAll(texts: readonly string[], given: EncodeOptions = {}): Promise<Int32Array[]> {
    listOf("encodeAll", "texts", texts, textOf);
    const addSpecialTokens = switched("encodeAll", "addSpecialTokens", given);
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

  /** Text of token ids, without special tokens unless told otherwise. Throws `ERR_OPTION`. */
  decode(ids: ArrayLike<number>, given: DecodeOptions = {}): string {
    const checked = idsOf("decode", "ids", ids);
    return this.#native.decode(checked, switched("decode", "skipSpecialTokens", given));
  }

  /**
   * Decodes ids as they come after `context`, each at the same cost however many there were. `push` gives the text
   * that an id completes, which may be none: a token may be a part of a letter, and one that the tokenizer does not
   * know has no text. `held` says whether the last ids may be such a part, and `rest` gives what they are if nothing
   * follows. All pieces together are what `decode` makes of all ids after what it makes of the context; but of a run
   * of tokens for single bytes which as a whole is no UTF-8, letters that were whole when they came stay. Throws `ERR_OPTION`.
   */
  decodeStream(context: ArrayLike<number> = [], given: DecodeOptions = {}): DecodeStream {
    const before = idsOf("decodeStream", "context", context);
    const skips = switched("decodeStream", "skipSpecialTokens", given);
    const stream = guarded(this.#native.decodeStream(before, skips));
    return {
      push: (id) => stream.push(idOf("push", "id", id)),
      held: () => stream.held(),
      rest: () => stream.rest(),
    };
  }

  /** The id of a token, as the vocabulary spells it; undefined where it has none. Throws `ERR_OPTION`. */
  tokenToId(token: string): number | undefined {
    textOf("tokenToId", "token", token);
    return this.#native.tokenToId(token) ?? undefined;
  }

  /** How many tokens there are, added ones among them. */
  get vocabSize(): number {
    return this.#native.vocabSize();
  }
}

/** The option `name`, which is on unless given. */
function switched<N extends string>(
  where: string,
  name: N,
  given: { [K in N]?: boolean | undefined },
): boolean {
  const value: unknown = options(where, given, [name])[name];
  return value === undefined || flag(where, name, value);
}

/** A token id: what an Int32Array can hold. One that no tokenizer knows has no text. */
function idOf(where: string, name: string, value: unknown): number {
  return numberThat(where, name, value, (id) => Number.isInteger(id) && id === (id | 0), "a token id");
}

function idsOf(where: string, name: string, value: unknown): Int32Array {
  if (value instanceof Int32Array) return value;
  const list = Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
  if (!list) return refuse(where, name, "an array of token ids", value);
  return Int32Array.from(value as ArrayLike<number>, (id, i) => idOf(where, `${name}[${i}]`, id));
}
