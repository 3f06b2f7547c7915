/** Converts data for a language model to examples. */
import { hasOption, optionName, optionSetting } from "../arguments/option-name.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { encodeChats, fitChat, isWritten, fitWholeChat, type EncodedChat, type FittedChat } from "./chat.js";
import type { PromptFormat, TrainOn } from "./format.js";
import {
  encodeRunning,
  encodeTexts,
  findEndTokens,
  type Encoded,
  type Encoder,
  runPipeline,
} from "./encode.js";
import { describeRow } from "./source/origin.js";
import type { Content, DataChunk, TextData } from "./read.js";
import {
  countChat,
  countCopy,
  countEmpty,
  countRow,
  countUnused,
  type DataReport,
  type LengthLimits,
  listSkippedWarnings,
} from "./report.js";
import { formatPrompts } from "./prompts.js";
import type { ChatRow, TextRow } from "./rows.js";
import { ExampleStore, type StoredExamples } from "./store.js";

export type { Encoder } from "./encode.js";
export type { Example, Examples } from "./store.js";

export interface ExampleOptions {
  /**
   * The maximum tokens of an example; longer rows are truncated, and running text is split into blocks of this length.
   */
  maxLength: number;
  /** The first is appended to rows that do not already end with one of them. */
  eosTokenIds: readonly number[];
  /**
   * `"completion"` and `"assistant"` train only on the completion, or on the assistant's turns; `"all"` also on the
   * prompt or on all turns. Rows of text are always trained on completely.
   */
  trainOn?: TrainOn | undefined;
  /** Whether the chat template writes rows of prompt and completion; `"auto"`, which is `"chat"` if there is one. */
  promptFormat?: PromptFormat | undefined;
  /** The model's vocabulary size; larger ids are rejected. */
  vocabSize?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: OnProgress | undefined;
}

/** Receives the progress of a source, and the number of tokens of all sources so far. */
export type OnProgress = (progress: {
  file: string;
  read: number;
  size: number | undefined;
  tokens: number;
}) => void;

/** Throws `ERR_INDEX` for an id outside the model's vocabulary. */
export function checkIds(ids: Int32Array, where: string, vocabSize: number | undefined): void {
  const wrong = vocabSize === undefined ? undefined : ids.find((id) => id >= vocabSize);
  if (wrong === undefined) return;
  throw new LowrankError(
    "ERR_INDEX",
    `${where}: the tokenizer returned the id ${wrong}, but the model's ids end at ${(vocabSize as number) - 1}; ` +
      "its tokenizer.json belongs to another model",
  );
}

/** A row's ids, the number of leading ids that are not trained on, and the number of ids before truncation. */
export interface RowIds {
  ids: Int32Array;
  ignored: number;
  total: number;
}

function concatIds(maxLength: number, ...parts: ArrayLike<number>[]): Int32Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const ids = new Int32Array(Math.min(length, maxLength));
  let offset = 0;
  for (const part of parts) {
    const room = ids.length - offset;
    ids.set(part.length <= room ? part : Array.prototype.slice.call(part, 0, room), offset);
    offset += Math.min(part.length, room);
  }
  return ids;
}

/** Returns the missing end token, or nothing; a text that was not encoded to its end always gets one. */
function completeEnd({ ids, total }: Encoded, eosTokenIds: readonly number[]): number[] {
  const last = total > ids.length ? undefined : ids.at(-1);
  return last !== undefined && eosTokenIds.includes(last) ? [] : eosTokenIds.slice(0, 1);
}

/** Returns a prompt's ids without an end token added by the tokenizer, since the completion follows. */
function dropPromptEnd(prompt: Encoded, end: Int32Array, eosTokenIds: readonly number[]): Encoded {
  const { ids, total } = prompt;
  const adds = end.length > 0 && eosTokenIds.includes(end.at(-1) as number);
  if (!adds || total > ids.length || ids.length === 0) return prompt;
  return { ids: ids.subarray(0, -1), total: total - 1 };
}

/**
 * Encodes rows. Prompt and completion are tokenised separately and concatenated. Texts are encoded only as far as their
 * row needs.
 */
async function encodeRows(
  rows: readonly Exclude<TextRow, ChatRow>[],
  encoder: Encoder,
  end: Int32Array,
  { eosTokenIds, maxLength, trainOn }: ExampleOptions,
): Promise<RowIds[]> {
  const limit = maxLength + 1;
  const texts = rows.map((row) => (row.kind === "text" ? row.text : row.prompt));
  const completions = rows.flatMap((row) => (row.kind === "text" ? [] : [row.completion]));
  const [beginnings, others] = await Promise.all([
    encodeTexts(encoder, texts, { addSpecialTokens: true, limit }),
    encodeTexts(encoder, completions, { addSpecialTokens: false, limit }),
  ]);
  let next = 0;
  return rows.map((row, i) => {
    const beginning = beginnings[i] as Encoded;
    if (row.kind === "text") {
      const last = completeEnd(beginning, eosTokenIds);
      return {
        ids: concatIds(maxLength, beginning.ids, last),
        ignored: 0,
        total: beginning.total + last.length,
      };
    }
    const prompt = dropPromptEnd(beginning, end, eosTokenIds);
    const completion = others[next++] as Encoded;
    const last = completeEnd(completion, eosTokenIds);
    return {
      ids: concatIds(maxLength, prompt.ids, completion.ids, last),
      ignored: trainOn === "all" ? 0 : Math.min(prompt.ids.length, maxLength),
      total: prompt.total + completion.total + last.length,
    };
  });
}

/** Characters of rows encoded as one unit of work; small enough that stopping a run is quick. */
const CHUNK = 1 << 16;
/** The assumed size of a message in addition to its text, for the template's markup. */
const MESSAGE = 64;

/** Yields runs of rows of about `CHUNK` characters, with the bytes read up to the end of each. */
export async function* splitIntoChunks<
  R extends {
    text?: string | undefined;
    prompt?: string | undefined;
    completion?: string | undefined;
    messages?: readonly { content?: unknown }[] | undefined;
  },
>(parts: AsyncIterable<DataChunk<R[]>>): AsyncGenerator<DataChunk<R[]>> {
  for await (const { part, read } of parts) {
    let [from, size] = [0, 0];
    for (const [i, { text = "", prompt = "", completion = "", messages = [] }] of part.entries()) {
      size += text.length + prompt.length + completion.length;
      for (const { content } of messages)
        size += MESSAGE + (typeof content === "string" ? content.length : 0);
      if (size < CHUNK) continue;
      yield { part: part.slice(from, i + 1), read };
      [from, size] = [i + 1, 0];
    }
    if (from < part.length) yield { part: part.slice(from), read };
  }
}

/**
 * Tokenises data in parallel, without blocking the event loop. Examples keep the data's order and include those without
 * a trained token. Texts are not kept.
 *
 * Throws `ERR_INDEX` for an id outside the model's vocabulary; the signal's reason, at once.
 */
export async function tokenizeRows(
  data: TextData,
  encoder: Encoder,
  options: ExampleOptions,
): Promise<ExampleStore> {
  throwIfAborted(options.signal);
  const store = new ExampleStore("tokens", options.vocabSize);
  if (data.kind === "text") for (const text of data.sources) await addBlocks(text, encoder, options, store);
  else for (const rows of data.sources) await addRows(rows, encoder, options, store);
  return store;
}

async function addRows(
  data: Content<TextRow[]>,
  encoder: Encoder,
  options: ExampleOptions,
  store: ExampleStore,
): Promise<void> {
  const { signal, maxLength, vocabSize, onProgress, trainOn, promptFormat: format = "auto" } = options;
  const end = findEndTokens(encoder);
  const report = store.begin(data);
  const encode = async ({ part, read }: DataChunk<TextRow[]>) => {
    const rows = formatPrompts(part, encoder, { format, trainOn }, data);
    const [plain, chats] = await Promise.all([
      encodeRows(rows.filter(isPlain), encoder, end, options),
      encodeChats(rows.filter(isChat), encoder, data, maxLength + 1),
    ]);
    return { rows, read, plain: plain.values(), chats: chats.values() };
  };
  for await (const { rows, plain, chats, read } of runPipeline(
    splitIntoChunks(data.parts(signal)),
    encode,
    signal,
  )) {
    for (const row of rows) {
      const where = describeRow(data, row.line);
      countUnused(report, row.line, row.unused);
      if (row.kind !== "text" && row.copy !== undefined) countCopy(report, row.line, row.copy);
      if (isChat(row)) {
        const chat = chats.next().value as EncodedChat;
        checkIds(chat.ids, where, vocabSize);
        addChat(chat, row, options, store, report);
        if (store.trainedAt(store.length - 1) > 0 && hasEmptyAnswer(row)) countEmpty(report, row.line);
        continue;
      }
      const { ids, ignored, total } = plain.next().value as RowIds;
      checkIds(ids, where, vocabSize);
      store.add(ids, ignored);
      const trained = store.trainedAt(store.length - 1);
      countRow(report, row.line, { total, maxLength, trained });
      if (trained > 0 && (row.kind === "text" ? row.text : row.completion).trim() === "")
        countEmpty(report, row.line);
    }
    onProgress?.({ file: data.file, read, size: data.size, tokens: store.tokens });
  }
}

function isChat(row: TextRow): row is ChatRow {
  return row.kind === "chat";
}

/** Fields of a turn that contain a model's reasoning before its answer. */
const THOUGHTS = ["reasoning_content", "reasoning", "thinking"];

/** Whether a trained assistant turn has neither text nor a tool call. */
function hasEmptyAnswer({ messages, unweighted = [] }: ChatRow): boolean {
  const isEmpty = (text: unknown): boolean => typeof text !== "string" || text.trim() === "";
  return messages.some(
    (turn, i) =>
      turn.role === "assistant" &&
      !unweighted.includes(i) &&
      turn["tool_calls"] === undefined &&
      isEmpty(turn.content) &&
      THOUGHTS.every((name) => isEmpty(turn[name])),
  );
}

function isPlain(row: TextRow): row is Exclude<TextRow, ChatRow> {
  return row.kind !== "chat";
}

function addChat(
  chat: EncodedChat,
  row: ChatRow,
  { trainOn, maxLength }: ExampleOptions,
  store: ExampleStore,
  report: DataReport,
): void {
  const nothing: FittedChat = { ids: new Int32Array(), spans: [] };
  if (row.format !== "messages") countChat(report, row.format, row.line);
  const written = isWritten(chat, row, report);
  if (written && trainOn === "all") {
    const { ids, spans } = fitWholeChat(chat, maxLength);
    store.addSpans(ids, spans);
    const trained = store.trainedAt(store.length - 1);
    countRow(report, row.line, { total: chat.total, maxLength, trained });
    return;
  }
  const { ids, spans } = (written ? fitChat(chat, row, maxLength, report) : undefined) ?? nothing;
  store.addSpans(ids, spans);
}

/** Splits a running text into blocks of `maxLength` tokens without overlap; the last may be shorter. */
async function addBlocks(
  data: Content<string>,
  encoder: Encoder,
  { maxLength, vocabSize, signal, onProgress }: ExampleOptions,
  store: ExampleStore,
): Promise<void> {
  let remainder = new Int32Array();
  const report = store.begin(data);
  const before = store.length;
  const onCut = (): void => void report.roughCuts++;
  for await (const { ids, read } of encodeRunning(data.parts(signal), encoder, { signal, onCut })) {
    checkIds(ids, data.file, vocabSize);
    const all = concatIds(Infinity, remainder, ids);
    let offset = 0;
    for (; offset + maxLength <= all.length; offset += maxLength)
      store.add(all.subarray(offset, offset + maxLength), 0);
    remainder = all.slice(offset);
    onProgress?.({ file: data.file, read, size: data.size, tokens: store.tokens + remainder.length });
  }
  if (remainder.length > 0) store.add(remainder, 0);
  report.rows = store.length - before;
}

/**
 * Returns the examples with trained tokens. `reports` explain why others have none.
 *
 * Throws `ERR_NO_TRAINED_TOKENS` when no example has any.
 */
export function keepTrained(
  examples: StoredExamples,
  file: string,
  limits: LengthLimits,
  reports: readonly DataReport[] = [],
): StoredExamples {
  let count = 0;
  for (let row = 0; row < examples.length; row++) if (examples.trainedAt(row) > 0) count++;
  if (count === 0) {
    const why = reports.flatMap((report) => listSkippedWarnings(report, limits));
    if (why.length > 0)
      throw new LowrankError("ERR_NO_TRAINED_TOKENS", `nothing to train on: ${why.join("; ")}`);
    const { maxLength, modelLength } = limits;
    const reason = `each row's first ${maxLength} tokens contain nothing to train on`;
    const hint = hasOption("trainOn")
      ? `, or train on all tokens with ${optionSetting("trainOn", "all")}`
      : "";
    const longer =
      maxLength < modelLength
        ? `, or raise ${optionName("maxLength")} up to the model's ${modelLength}`
        : ` (the model reads at most ${modelLength} tokens)`;
    const remedy = `shorten the prompts${longer}${hint}`;
    throw new LowrankError("ERR_NO_TRAINED_TOKENS", `${file}: ${reason}; ${remedy}`);
  }
  if (count === examples.length) return examples;
  const rows = new Uint32Array(count);
  for (let row = 0, filled = 0; row < examples.length; row++)
    if (examples.trainedAt(row) > 0) rows[filled++] = row;
  return examples.pick(rows);
}
