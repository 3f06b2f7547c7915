/** Which tokens of a text are of its turns. */
import type { Turn } from "./turns.js";

/** Decodes ids one by one; see `Tokenizer.decodeStream`. */
export interface TokenStream {
  push(id: number): string;
  held(): boolean;
  rest(): string;
}

/** Where each token begins and ends in the text. */
export interface Offsets {
  starts: Int32Array;
  ends: Int32Array;
}

/**
 * The places of a text's tokens, by what each decodes to, special tokens as they are written. A space that the tokenizer
 * puts in front of a piece is passed over, and so is whitespace that it drops. Of a letter of several tokens each has the
 * whole. Undefined where the decoded text is another.
 */
export function offsetsOf(text: string, ids: Int32Array, stream: TokenStream): Offsets | undefined {
  const starts = new Int32Array(ids.length);
  const ends = new Int32Array(ids.length);
  let at = 0;
  let waiting = 0;
  const place = (piece: string, upTo: number): boolean => {
    const found = placeOf(text, at, piece);
    if (found === undefined) return false;
    const end = found.end;
    const letter = found.start + (String.fromCodePoint(text.codePointAt(found.start) ?? 0).length || 1);
    for (let i = waiting; i < upTo; i++) {
      starts[i] = found.start;
      ends[i] = i === upTo - 1 ? end : Math.min(letter, end);
    }
    waiting = upTo;
    at = end;
    return true;
  };
  for (let i = 0; i < ids.length; i++) {
    const piece = stream.push(ids[i] as number);
    if (piece === "" && stream.held()) continue;
    if (!place(piece, i + 1)) return undefined;
  }
  if (!place(stream.rest(), ids.length)) return undefined;
  return text.slice(at).trim() === "" ? { starts, ends } : undefined;
}

/** Where `piece` stands in `text`, from `at` on. */
function placeOf(text: string, at: number, piece: string): { start: number; end: number } | undefined {
  if (text.startsWith(piece, at)) return { start: at, end: at + piece.length };
  if (piece.startsWith(" ") && text.startsWith(piece.slice(1), at))
    return { start: at, end: at + piece.length - 1 };
  const spaces = /\s*/y;
  spaces.lastIndex = at;
  const start = at + (spaces.exec(text)?.[0].length ?? 0);
  // Back over whitespace that is the piece's own.
  for (let from = at + 1; from <= start; from++)
    if (text.startsWith(piece, from)) return { start: from, end: from + piece.length };
  return undefined;
}

/** Tokens from `start` up to `end`. */
export interface TokenSpan {
  start: number;
  end: number;
}

/**
 * The tokens of each turn: all that a turn has a character of, as transformers takes them; at a rough end those that lie
 * in it whole. Turns without a token are left out.
 */
export function tokenSpans(turns: readonly Turn[], { starts, ends }: Offsets): TokenSpan[] {
  const spans: TokenSpan[] = [];
  let next = 0;
  for (const turn of turns) {
    let first = -1;
    let end = -1;
    for (let i = next; i < starts.length && (starts[i] as number) < turn.end; i++) {
      if ((ends[i] as number) <= turn.start) continue;
      if (turn.rough === true && (ends[i] as number) > turn.end) continue;
      if (first < 0) first = i;
      end = i + 1;
    }
    if (first < 0) continue;
    next = end;
    spans.push({ start: first, end });
  }
  return spans;
}
