import { abortReason, LowrankError, throwIfAborted } from "../errors.js";
import type { TextData } from "./read.js";
import type { Row, TextRow } from "./rows.js";

/** A label that is not trained on. */
export const IGNORED = -100;

/** Token ids and what is to be predicted. */
export interface Example {
  ids: Int32Array;
  /** Of a language model one beside each id: itself, or −100. Of a classifier one for the row: its class. */
  labels: Int32Array;
  /** Predictions that are trained on: labels after the first position that are not −100, or the row's one. */
  trained: number;
}

/** The part of a tokenizer that data needs. */
export interface Encoder {
  encode(text: string, options?: { addSpecialTokens?: boolean }): Int32Array;
  /** The same for many texts, away from the event loop's thread. */
  encodeAll?(texts: readonly string[], options?: { addSpecialTokens?: boolean }): Promise<Int32Array[]>;
}

export interface ExampleOptions {
  /** Longer examples are cut off behind it; a running text is cut into blocks of it. */
  maxLength: number;
  /** The first ends a row; a row that ends with any of them is left as it is. */
  eosTokenIds: readonly number[];
  /** `"completion"` trains on the completion alone, `"all"` on the prompt too. Rows of text train on all. */
  trainOn?: "completion" | "all";
  /** How many ids the model has; others are refused. */
  vocabSize?: number;
  signal?: AbortSignal | undefined;
}

/** Throws `ERR_INDEX` for a token that the model has no row for. */
export function checkIds(ids: Int32Array, where: string, vocabSize: number | undefined): void {
  const wrong = vocabSize === undefined ? undefined : ids.find((id) => id >= vocabSize);
  if (wrong === undefined) return;
  throw new LowrankError(
    "ERR_INDEX",
    `${where}: the tokenizer gives the id ${wrong}, and the model's ids end at ${(vocabSize as number) - 1}; ` +
      "its tokenizer.json is of another model",
  );
}

function example(ids: Int32Array, ignoredPrefix: number, maxLength: number): Example {
  const kept = ids.slice(0, maxLength);
  const labels = kept.slice();
  const ignored = Math.min(ignoredPrefix, kept.length);
  labels.fill(IGNORED, 0, ignored);
  return { ids: kept, labels, trained: kept.length - Math.max(ignored, Math.min(1, kept.length)) };
}

function concat(...parts: ArrayLike<number>[]): Int32Array {
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length;
  }
  return ids;
}

/** What is missing at the end of `ids`: the end token, or nothing. */
function ending(ids: Int32Array, eosTokenIds: readonly number[]): number[] {
  const last = ids.at(-1);
  return last !== undefined && eosTokenIds.includes(last) ? [] : eosTokenIds.slice(0, 1);
}

/** A prompt's ids; an end token that the tokenizer itself adds is left out, since the completion follows. */
function encodePrompt(prompt: string, encoder: Encoder, eosTokenIds: readonly number[]): Int32Array {
  const ids = encoder.encode(prompt);
  const last = ids.at(-1);
  if (last === undefined || !eosTokenIds.includes(last)) return ids;
  const own = encoder.encode(prompt, { addSpecialTokens: false }).at(-1);
  return own === last ? ids : ids.subarray(0, -1);
}

/** A row as an example. Prompt and completion are tokenised apart and joined with nothing between. */
export function exampleOfRow(row: TextRow, encoder: Encoder, options: ExampleOptions): Example {
  const { eosTokenIds, maxLength } = options;
  if (row.kind === "text") {
    const ids = encoder.encode(row.text);
    return example(concat(ids, ending(ids, eosTokenIds)), 0, maxLength);
  }
  const prompt = encodePrompt(row.prompt, encoder, eosTokenIds);
  const completion = encoder.encode(row.completion, { addSpecialTokens: false });
  const ids = concat(prompt, completion, ending(completion, eosTokenIds));
  return example(ids, options.trainOn === "all" ? 0 : prompt.length, maxLength);
}

/** A running text cut into blocks of `maxLength` tokens without overlap; the last is kept short. */
export function blocksOfText(text: string, encoder: Encoder, maxLength: number): Example[] {
  const ids = encoder.encode(text);
  const blocks: Example[] = [];
  for (let at = 0; at < ids.length; at += maxLength) {
    blocks.push(example(ids.subarray(at, at + maxLength), 0, maxLength));
  }
  return blocks;
}

/** Characters that are encoded at once: about a tenth of a second, after which an abort is seen. */
const CHUNK = 1 << 16;

/** Rows in runs of about `CHUNK` characters. */
export function* chunks<R extends Row>(rows: readonly R[]): Generator<R[]> {
  let [chunk, size]: [R[], number] = [[], 0];
  for (const row of rows) {
    chunk.push(row);
    size += row.kind === "completion" ? row.prompt.length + row.completion.length : row.text.length;
    if (size < CHUNK) continue;
    yield chunk;
    [chunk, size] = [[], 0];
  }
  if (chunk.length > 0) yield chunk;
}

/** An encoder that knows the ids of some texts already. */
export async function ahead(encoder: Encoder, withSpecial: string[], without: string[]): Promise<Encoder> {
  if (encoder.encodeAll === undefined) return encoder;
  const known = async (texts: string[], addSpecialTokens: boolean): Promise<Map<string, Int32Array>> => {
    const ids = (await encoder.encodeAll?.(texts, { addSpecialTokens })) ?? [];
    return new Map(texts.map((text, i) => [text, ids[i] as Int32Array]));
  };
  const [special, plain] = [await known(withSpecial, true), await known(without, false)];
  return {
    encode: (text, options = {}) =>
      (options.addSpecialTokens === false ? plain : special).get(text) ?? encoder.encode(text, options),
  };
}

/** Settles as `promise` does, or rejects as soon as the signal is aborted. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
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

/**
 * Tokenises a data file; the event loop stays free. Examples are in the file's order, those without a trained token
 * among them.
 *
 * Errors: `ERR_INDEX` for an id that the model doesn't have.
 */
export async function examplesOf(
  data: TextData,
  encoder: Encoder,
  options: ExampleOptions,
): Promise<Example[]> {
  const { signal, maxLength } = options;
  throwIfAborted(signal);
  if (data.kind === "text") {
    const known = await abortable(ahead(encoder, [data.text], []), signal);
    const blocks = blocksOfText(data.text, known, maxLength);
    for (const block of blocks) checkIds(block.ids, data.file, options.vocabSize);
    return blocks;
  }
  const examples: Example[] = [];
  for (const rows of chunks(data.rows)) {
    const texts = rows.map((row) => (row.kind === "text" ? row.text : row.prompt));
    const completions = rows.flatMap((row) => (row.kind === "text" ? [] : [row.completion]));
    const known = await abortable(ahead(encoder, texts, completions), signal);
    for (const row of rows) {
      const one = exampleOfRow(row, known, options);
      checkIds(one.ids, `${data.file}:${row.line}`, options.vocabSize);
      examples.push(one);
    }
  }
  return examples;
}

/** Takes the last `fraction` of the rows for evaluation: at least one, and at least one is left to train on. */
export function evalSplit<T>(examples: readonly T[], fraction: number): { train: T[]; held: T[] } {
  if (!(fraction > 0 && fraction < 1)) {
    throw new LowrankError("ERR_OPTION", `evalSplit must be between 0 and 1, and is ${fraction}`);
  }
  if (examples.length < 2) {
    const what = `the data has ${examples.length} row${examples.length === 1 ? "" : "s"}`;
    throw new LowrankError("ERR_OPTION", `evalSplit: ${what}, too few to hold any out`);
  }
  const count = Math.min(Math.max(Math.round(examples.length * fraction), 1), examples.length - 1);
  const at = examples.length - count;
  return { train: examples.slice(0, at), held: examples.slice(at) };
}

/**
 * The examples that have something to train on.
 *
 * Errors: `ERR_NO_TRAINED_TOKENS` when none has.
 */
export function trainedExamples(examples: readonly Example[], file: string, maxLength: number): Example[] {
  const kept = examples.filter((one) => one.trained > 0);
  if (kept.length === 0) {
    const reason = `each row's first ${maxLength} tokens hold nothing to train on`;
    const remedy = "shorten the prompts, raise the maximal length, or train on all";
    throw new LowrankError("ERR_NO_TRAINED_TOKENS", `${file}: ${reason}; ${remedy}`);
  }
  return kept;
}
