/** Encodes texts as token ids, in parallel where the tokenizer supports it, up to the limit only. */
import type { ChatTemplate } from "../chat/template.js";
import type { Offsets } from "../chat/tokens.js";
import { readAbortReason, throwIfAborted } from "../errors.js";

/** The parts of a tokenizer that data preparation uses. */
export interface Encoder {
  encode(text: string, options?: { addSpecialTokens?: boolean | undefined }): Int32Array;
  /** Encodes texts in parallel; returns the first `limit` ids of each. */
  encodeRows?(
    texts: readonly string[],
    options: { addSpecialTokens?: boolean | undefined; limit?: number | undefined },
  ): Promise<Encoded[]>;
  /** Encodes a running text in parts; undefined where the tokenizer needs the whole text. */
  readonly parts?: PartEncoder | undefined;
  /** The encoder of conversations. */
  readonly chat?: ChatEncoder | undefined;
}

/** The parts of a tokenizer that conversations use. */
export interface ChatEncoder {
  /** Whether there is a chat template. */
  readonly hasChatTemplate: boolean;
  /** Returns the template, or the one for tools. Throws `ERR_CHAT_TEMPLATE` where there is none. */
  findChatTemplate(tools: boolean): ChatTemplate;
  /** Encodes texts without adding special tokens. Of a long text it encodes the beginning, with at least `limit` ids. */
  encodeWithOffsets(texts: readonly string[], limit?: number): Promise<PlacedIds[]>;
}

/** The ids of a text or of its beginning, and the range of each token in the text. */
export interface PlacedIds {
  ids: Int32Array;
  offsets: Offsets;
  /** The length of the encoded beginning, in UTF-16 units. */
  encoded: number;
}

/** The first ids of a text. */
export interface Encoded {
  ids: Int32Array;
  /** The number of ids of the whole text; an estimate where its end was not encoded. */
  total: number;
}

/** Encodes parts of a running text so that their concatenated ids equal the ids of the whole. */
export interface PartEncoder {
  /** Special tokens before and after the text. */
  readonly frame: readonly [before: Int32Array, after: Int32Array];
  /** Returns the last safe split position; −1 where there is none. */
  lastSeam(text: string): number;
  /** Encodes a part between two safe split positions; `first` marks the beginning of the text. */
  encode(part: string, first: boolean): Promise<Int32Array>;
}

/** Encodes the first `limit` ids of each text. */
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

/** Returns the special tokens that a tokenizer appends to a text. */
export function findEndTokens(encoder: Encoder): Int32Array {
  const [withSpecial, plain] = [encoder.encode("a"), encoder.encode("a", { addSpecialTokens: false })];
  for (let start = 0; start + plain.length <= withSpecial.length; start++) {
    if (plain.every((id, i) => withSpecial[start + i] === id)) return withSpecial.slice(start + plain.length);
  }
  return new Int32Array();
}

/** Truncates ids to `maxLength`; a truncated row still ends with `end`. */
export function truncate(ids: Int32Array, end: Int32Array, maxLength: number): Int32Array {
  if (ids.length <= maxLength) return ids;
  const truncated = ids.slice(0, maxLength);
  if (end.length < maxLength) truncated.set(end, maxLength - end.length);
  return truncated;
}

/** Without a safe split position, a text is encoded whole up to this many characters, and split at line ends beyond. */
const WHOLE = 4 << 20;

/** A part of a running text, and the bytes read up to its end. */
interface SizedText {
  text: string;
  read: number;
}

/**
 * Encodes a running text part by part.
 *
 * `onCut` is called when a part had to end at an unsafe position, where the whole text could have other ids.
 */
export async function* encodeRunning(
  parts: AsyncIterable<{ part: string; read: number }>,
  encoder: Encoder,
  { signal, onCut }: { signal?: AbortSignal | undefined; onCut?: (() => void) | undefined } = {},
): AsyncGenerator<{ ids: Int32Array; read: number }> {
  const { parts: inParts } = encoder;
  const seam = (text: string): number => {
    const cut = inParts?.lastSeam(text) ?? -1;
    if (cut > 0 || text.length <= WHOLE) return cut;
    onCut?.();
    return text.lastIndexOf("\n") + 1 || findCharacterEnd(text);
  };
  let first = true;
  const encode = async (part: SizedText): Promise<{ ids: Int32Array; read: number }> => {
    const begins = first;
    first = false;
    if (inParts !== undefined) return { ids: await inParts.encode(part.text, begins), read: part.read };
    const options = { addSpecialTokens: begins, limit: Infinity };
    const [encoded] = await encodeTexts(encoder, [part.text], options);
    return { ids: (encoded as Encoded).ids, read: part.read };
  };
  const framed = (ids: Int32Array | undefined, read: number) => ({ ids: ids ?? new Int32Array(), read });
  yield framed(inParts?.frame[0], 0);
  let read = 0;
  for await (const chunk of runPipeline(cutAtSeams(parts, seam), encode, signal)) {
    read = chunk.read;
    yield chunk;
  }
  yield framed(inParts?.frame[1], read);
}

/** Returns a split position that does not divide a surrogate pair. */
function findCharacterEnd(text: string): number {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0xd800 && last <= 0xdbff ? text.length - 1 : text.length;
}

async function* cutAtSeams(
  parts: AsyncIterable<{ part: string; read: number }>,
  seam: (text: string) => number,
): AsyncGenerator<SizedText> {
  let remainder = "";
  let read = 0;
  for await (const part of parts) {
    remainder += part.part;
    read = part.read;
    const cut = seam(remainder);
    if (cut <= 0) continue;
    yield { text: remainder.slice(0, cut), read };
    remainder = remainder.slice(cut);
  }
  if (remainder !== "") yield { text: remainder, read };
}

/** The number of parts in progress: while they are encoded, the next is read. */
const AHEAD = 3;

/**
 * Applies `work` to each element with up to `AHEAD` running, and yields results in the same order. Rejects as soon as
 * the signal is aborted.
 */
export async function* runPipeline<T, R>(
  source: AsyncIterable<T>,
  work: (item: T) => Promise<R>,
  signal: AbortSignal | undefined,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  for await (const item of source) {
    throwIfAborted(signal);
    const promise = work(item);
    // Mark a rejection as handled until its turn to be awaited.
    promise.catch(() => {});
    running.push(promise);
    if (running.length >= AHEAD) yield await makeAbortable(running.shift() as Promise<R>, signal);
  }
  for (const result of running) yield await makeAbortable(result, signal);
}

/** Settles as `promise` does, or rejects as soon as the signal is aborted. */
async function makeAbortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  throwIfAborted(signal);
  if (signal === undefined) return promise;
  let stop = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(readAbortReason(signal));
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
