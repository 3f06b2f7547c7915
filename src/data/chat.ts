/** Conversations as examples: rendered by the model's template, trained on where the assistant speaks. */
import type { Ignored } from "../chat/ignored.js";
import { type Offsets, type TokenSpan, tokenSpans } from "../chat/tokens.js";
import { type Rendered, renderTurns } from "../chat/turns.js";
import { LowrankError } from "../errors.js";
import type { Encoder } from "./encode.js";
import { type Origin, rowAt } from "./origin.js";
import type { ChatRow } from "./rows.js";
import { countChat, type DataReport } from "./report.js";

/** A conversation's ids, and the tokens of the assistant's turns. */
export interface EncodedChat {
  text: string;
  ids: Int32Array;
  spans: TokenSpan[];
  /** Turns of the assistant that were not found in the text. */
  lost: number;
  /** The tokens of turns whose weight is 0. */
  unweighted?: TokenSpan[] | undefined;
  /** What the conversation has and the template does not write. */
  ignored?: Ignored | undefined;
}

/**
 * Renders and encodes conversations. The text is the template's: no special token is added.
 *
 * Errors: `ERR_CHAT_TEMPLATE` where there is no template, and with file and line for one that refuses a conversation,
 * fails or does not come to an end.
 */
export async function encodeChats(
  rows: readonly ChatRow[],
  encoder: Encoder,
  origin: Origin,
): Promise<EncodedChat[]> {
  if (rows.length === 0) return [];
  const { chat } = encoder;
  if (chat === undefined)
    throw new LowrankError(
      "ERR_CHAT_TEMPLATE",
      `${origin.file}: messages need a tokenizer with a chat template`,
    );
  const rendered = rows.map((row): Rendered => {
    const template = chat.chatTemplateFor(row.tools !== undefined);
    try {
      return renderTurns(template, row);
    } catch (cause) {
      if (!(cause instanceof LowrankError)) throw cause;
      throw new LowrankError(cause.code, `${rowAt(origin, row.line)}: ${cause.message}`, { cause });
    }
  });
  const encoded = await chat.encodeWithOffsets(rendered.map(({ text }) => text));
  return rendered.map(({ text, turns, lost, ignored }, i) => {
    const { ids, offsets } = encoded[i] as { ids: Int32Array; offsets: Offsets };
    const [spans, unweighted] = [false, true].map((without) =>
      tokenSpans(
        turns.filter((turn) => (turn.unweighted === true) === without),
        offsets,
      ),
    ) as [TokenSpan[], TokenSpan[]];
    return { text, ids, spans, lost, unweighted, ignored };
  });
}

/** What of a conversation is trained on. */
export interface FittedChat {
  ids: Int32Array;
  spans: TokenSpan[];
}

/**
 * Counts what the template does not write of a row. Returns whether the row can be trained on: where a tool call is not
 * written, the assistant would learn to answer without it.
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
 * A conversation within `maxLength` tokens, counted: a longer one ends behind the last turn of the assistant that fits
 * whole. Undefined where nothing is left to train on.
 */
export function fitChat(
  { ids, spans, lost, unweighted = [] }: EncodedChat,
  { line, messages, format }: ChatRow,
  maxLength: number,
  report: DataReport,
): FittedChat | undefined {
  report.rows++;
  if (format !== "messages") countChat(report, format, line);
  const spoken = messages.some(({ role }) => role === "assistant");
  const kept = spans.filter(({ end }) => end <= maxLength);
  const last = kept.at(-1);
  // The first token of a row is predicted by none.
  if (last === undefined || last.end <= 1) {
    report.dropped++;
    const found = unweighted.length > 0 ? "unweighted" : "notFound";
    countChat(report, !spoken ? "silent" : spans.length === 0 ? found : "tooLong", line);
    return undefined;
  }
  if (lost > 0) countChat(report, "lastTurnOnly", line);
  if (kept.reduce((sum, { start, end }) => sum + end - start, 0) === ids.length)
    countChat(report, "whole", line);
  if (ids.length <= maxLength) return { ids, spans };
  report.cut++;
  countChat(report, "shortened", line);
  return { ids: ids.slice(0, last.end), spans: kept };
}

/** A conversation that is trained on from its first token to its last, but for turns whose weight is 0. */
export function wholeChat({ ids, unweighted = [] }: EncodedChat, maxLength: number): FittedChat {
  const kept = ids.subarray(0, maxLength);
  const spans: TokenSpan[] = [];
  let start = 0;
  for (const span of [...unweighted, { start: kept.length, end: kept.length }]) {
    const end = Math.min(span.start, kept.length);
    if (end > start) spans.push({ start, end });
    start = span.end;
  }
  return { ids: kept, spans };
}
