/** Converts conversations to examples: rendered by the model's template, trained on the assistant's turns. */
import type { Ignored } from "../chat/ignored.js";
import { type TokenSpan, findTokenSpans } from "../chat/tokens.js";
import { locateTurns, type Turn } from "../chat/turns.js";
import { LowrankError } from "../errors.js";
import type { Encoder, PlacedIds } from "./encode.js";
import { type Origin, describeRow } from "./source/origin.js";
import type { ChatRow } from "./rows.js";
import { adviseRaw, countChat, type DataReport } from "./report.js";

/** A conversation's ids, and the token spans of the assistant's turns. */
export interface EncodedChat {
  text: string;
  /** All ids, or more than the limit. */
  ids: Int32Array;
  /** The number of ids of the whole text; an estimate where its end was not encoded. */
  total: number;
  /** The last span reaches beyond `ids` if the end of its turn was not encoded. */
  spans: TokenSpan[];
  /** Turns of the assistant that were not found in the text. */
  lost: number;
  /** The tokens of turns with weight 0. */
  unweighted?: TokenSpan[] | undefined;
  /** Parts of the conversation that the template ignores. */
  ignored?: Ignored | undefined;
}

/**
 * Renders and encodes conversations, without adding special tokens to the template's text. Texts are encoded only as
 * far as `limit` ids need.
 *
 * Throws `ERR_CHAT_TEMPLATE` where there is no template, and with file and line where it rejects a conversation, fails
 * or does not terminate.
 */
export async function encodeChats(
  rows: readonly ChatRow[],
  encoder: Encoder,
  origin: Origin,
  limit = Infinity,
): Promise<EncodedChat[]> {
  if (rows.length === 0) return [];
  const { chat } = encoder;
  if (chat === undefined)
    throw new LowrankError(
      "ERR_CHAT_TEMPLATE",
      `${origin.file}: messages need a tokenizer with a chat template`,
    );
  const rendered = rows.map((row) => {
    const template = chat.findChatTemplate(row.tools !== undefined);
    return { row, template, text: nameRow(row, origin, () => template.render(row)) };
  });
  const encoded = await chat.encodeWithOffsets(
    rendered.map(({ text }) => text),
    limit,
  );
  return rendered.map(({ row, template, text }, i) => {
    const placed = encoded[i] as PlacedIds;
    const { ids } = placed;
    const { turns, lost, ignored } = nameRow(row, origin, () =>
      locateTurns(template, row, text, placed.encoded),
    );
    const [spans, unweighted] = [false, true].map((without) =>
      findSpans(
        turns.filter((turn) => (turn.unweighted === true) === without),
        placed,
      ),
    ) as [TokenSpan[], TokenSpan[]];
    const total = Math.round((ids.length * text.length) / Math.max(1, placed.encoded));
    return { text, ids, total, spans, lost, unweighted, ignored };
  });
}

/** Returns the result of `work`; an error names the row. */
function nameRow<T>(row: ChatRow, origin: Origin, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (!(cause instanceof LowrankError)) throw cause;
    const raw = row.format === "prompt" ? `; ${adviseRaw()}` : "";
    throw new LowrankError(cause.code, `${describeRow(origin, row.line)}: ${cause.message}${raw}`, { cause });
  }
}

/** Returns the tokens of each turn. The first turn whose end was not encoded has a span that ends after all ids. */
function findSpans(turns: readonly Turn[], { ids, offsets, encoded }: PlacedIds): TokenSpan[] {
  const spans = findTokenSpans(
    turns.filter(({ end }) => end <= encoded),
    offsets,
  );
  const cut = turns.find(({ end }) => end > encoded);
  if (cut === undefined) return spans;
  const [begun] = findTokenSpans([{ start: cut.start, end: encoded }], offsets);
  return [...spans, { start: begun?.start ?? ids.length, end: ids.length + 1 }];
}

/** The ids of a conversation, and the spans to train on. */
export interface FittedChat {
  ids: Int32Array;
  spans: TokenSpan[];
}

/**
 * Counts the parts of a row that the template ignores. Returns whether the row can be trained on: if a tool call is
 * ignored, the assistant would learn to answer without it.
 */
export function isWritten({ ignored }: EncodedChat, { line }: ChatRow, report: DataReport): boolean {
  if (ignored?.tools) countChat(report, "toolsIgnored", line);
  if (ignored?.messages) countChat(report, "messageIgnored", line);
  if (!ignored?.calls) return true;
  report.rows++;
  report.dropped++;
  countChat(report, "callsIgnored", line);
  return false;
}

/**
 * Fits a conversation into `maxLength` tokens and counts it. A longer one ends after the last assistant turn that fits
 * completely. Returns undefined where nothing is left to train on.
 */
export function fitChat(
  { ids, spans, lost, unweighted = [] }: EncodedChat,
  { line, messages }: ChatRow,
  maxLength: number,
  report: DataReport,
): FittedChat | undefined {
  report.rows++;
  const spoken = messages.some(({ role }) => role === "assistant");
  const fitting = spans.filter(({ end }) => end <= maxLength);
  const last = fitting.at(-1);
  // Nothing predicts the first token of a row.
  if (last === undefined || last.end <= 1) {
    report.dropped++;
    const found = unweighted.length > 0 ? "unweighted" : "notFound";
    countChat(report, !spoken ? "silent" : spans.length === 0 ? found : "tooLong", line);
    return undefined;
  }
  if (lost > 0) countChat(report, "lastTurnOnly", line);
  if (fitting.reduce((sum, { start, end }) => sum + end - start, 0) === ids.length)
    countChat(report, "whole", line);
  if (ids.length <= maxLength) return { ids, spans };
  report.cut++;
  countChat(report, "shortened", line);
  return { ids: ids.slice(0, last.end), spans: fitting };
}

/** Trains on a whole conversation, up to `maxLength` tokens, except for turns with weight 0. */
export function fitWholeChat({ ids, unweighted = [] }: EncodedChat, maxLength: number): FittedChat {
  const truncated = ids.subarray(0, maxLength);
  const spans: TokenSpan[] = [];
  let start = 0;
  for (const span of [...unweighted, { start: truncated.length, end: truncated.length }]) {
    const end = Math.min(span.start, truncated.length);
    if (end > start) spans.push({ start, end });
    start = span.end;
  }
  return { ids: truncated, spans };
}
