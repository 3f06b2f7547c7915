/** Texts as token ids: in parallel where the tokenizer can, and no more of a text than is wanted. */
import type { ChatTemplate } from "../chat/template.js";
import type { Offsets } from "../chat/tokens.js";
import { abortReason, throwIfAborted } from "../errors.js";

/** The part of a tokenizer that data needs. */
export interface Encoder {
  encode(text: string, options?: { addSpecialTokens?: boolean | undefined }): Int32Array;
  /** The same for many texts, in parallel: of each the first `limit` ids. */
  encodeRows?(
    texts: readonly string[],
    options: { addSpecialTokens?: boolean | undefined; limit?: number | undefined },
  ): Promise<Encoded[]>;
  /** How to encode a running text in parts; undefined where only a whole text has its ids. */
  readonly parts?: Parts | undefined;
  /** How conversations become texts and ids. */
  readonly chat?: ChatEncoder | undefined;
}

/** The part of a tokenizer that conversations need. */
export interface ChatEncoder {
  /** The template, or the one for tools. Throws `ERR_CHAT_TEMPLATE` where there is none. */
  chatTemplateFor(tools: boolean): ChatTemplate;
  /** The ids of texts without special tokens added, and where each token is. */
  encodeWithOffsets(texts: readonly string[]): Promise<{ ids: Int32Array; offsets: Offsets }[]>;
}

/** The beginning of a text's ids. */
export interface Encoded {
  ids: Int32Array;
  /** How many ids the whole text has; an estimate where it was not read to its end. */
  total: number;
}

/** Encodes parts of a running text, whose ids one after the other are those of the whole. */
export interface Parts {
  /** Special tokens before the text and behind it. */
  readonly frame: readonly [before: Int32Array, after: Int32Array];
  /** The last place where the text may be cut so; −1 where there is none. */
  lastSeam(text: string): number;
  /** Ids of a part between two such places; `first` where the text begins with it. */
  encode(part: string, first: boolean): Promise<Int32Array>;
}

/** The first `limit` ids of each text. */
export async function encodeTexts(
  encoder: Encoder,
  texts: readonly string[],
  options: { addSpecialTokens: boolean; limit: number },
): Promise<Encoded[]> {
  if (texts.length === 0) return [];
  if (encoder.encodeRows !== undefined) return encoder.encodeRows(texts, options);
  return texts.map((text) => {
    const ids = encoder.encode(text, options);
    return { ids: ids.subarray(0, options.limit), total: ids.length };
  });
}

/** The special tokens that a tokenizer puts behind a text. */
export function endOf(encoder: Encoder): Int32Array {
  const [whole, plain] = [encoder.encode("a"), encoder.encode("a", { addSpecialTokens: false })];
  for (let at = 0; at + plain.length <= whole.length; at++) {
    if (plain.every((id, i) => whole[at + i] === id)) return whole.slice(at + plain.length);
  }
  return new Int32Array();
}

/** The first `maxLength` ids, the last of them `end` if any are left out. */
export function shortened(ids: Int32Array, end: Int32Array, maxLength: number): Int32Array {
  if (ids.length <= maxLength) return ids;
  const kept = ids.slice(0, maxLength);
  if (end.length < maxLength) kept.set(end, maxLength - end.length);
  return kept;
}

/** Where no seam is known, a text is encoded whole up to this many characters, and cut at line ends beyond. */
const WHOLE = 4 << 20;

/** A part of a running text to be encoded, and what has been read of the text with it. */
interface TextPart {
  text: string;
  read: number;
}

/**
 * The ids of a running text, in order, a part at a time.
 *
 * `onCut` is told when a part had to end where the ids of both sides may not be those of the whole.
 */
export async function* encodeRunning(
  parts: AsyncIterable<{ part: string; read: number }>,
  encoder: Encoder,
  { signal, onCut }: { signal?: AbortSignal | undefined; onCut?: (() => void) | undefined } = {},
): AsyncGenerator<{ ids: Int32Array; read: number }> {
  const { parts: inParts } = encoder;
  const seam = (text: string): number => {
    const at = inParts?.lastSeam(text) ?? -1;
    if (at > 0 || text.length <= WHOLE) return at;
    onCut?.();
    return text.lastIndexOf("\n") + 1 || wholeCharacters(text);
  };
  let first = true;
  const encode = async (part: TextPart): Promise<{ ids: Int32Array; read: number }> => {
    const begins = first;
    first = false;
    if (inParts !== undefined) return { ids: await inParts.encode(part.text, begins), read: part.read };
    const options = { addSpecialTokens: begins, limit: Infinity };
    const [one] = await encodeTexts(encoder, [part.text], options);
    return { ids: (one as Encoded).ids, read: part.read };
  };
  const framed = (ids: Int32Array | undefined, read: number) => ({ ids: ids ?? new Int32Array(), read });
  yield framed(inParts?.frame[0], 0);
  let read = 0;
  for await (const one of pipelined(cutAtSeams(parts, seam), encode, signal)) {
    read = one.read;
    yield one;
  }
  yield framed(inParts?.frame[1], read);
}

/** A place that divides no pair of surrogates. */
function wholeCharacters(text: string): number {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0xd800 && last <= 0xdbff ? text.length - 1 : text.length;
}

async function* cutAtSeams(
  parts: AsyncIterable<{ part: string; read: number }>,
  seam: (text: string) => number,
): AsyncGenerator<TextPart> {
  let held = "";
  let read = 0;
  for await (const one of parts) {
    held += one.part;
    read = one.read;
    const at = seam(held);
    if (at <= 0) continue;
    yield { text: held.slice(0, at), read };
    held = held.slice(at);
  }
  if (held !== "") yield { text: held, read };
}

/** Parts that are worked on at once: while one is, the next is read. */
const AHEAD = 3;

/** What `work` makes of each, in order, the next begun before one is done. Rejects as soon as the signal is aborted. */
export async function* pipelined<T, R>(
  source: AsyncIterable<T>,
  work: (one: T) => Promise<R>,
  signal: AbortSignal | undefined,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  for await (const one of source) {
    throwIfAborted(signal);
    const begun = work(one);
    // One that waits its turn is nobody's failure yet.
    begun.catch(() => {});
    running.push(begun);
    if (running.length >= AHEAD) yield await abortable(running.shift() as Promise<R>, signal);
  }
  for (const one of running) yield await abortable(one, signal);
}

/** Settles as `promise` does, or rejects as soon as the signal is aborted. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  throwIfAborted(signal);
  if (signal === undefined) return promise;
  let stop = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(abortReason(signal));
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
