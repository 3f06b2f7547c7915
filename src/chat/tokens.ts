/** Which tokens of a text are of its turns. */
import type { Turn } from "./turns.js";

/** Where each token begins and ends in the text, in UTF-16 units; of a letter of several tokens each has the whole. */
export interface Offsets {
  starts: Int32Array;
  ends: Int32Array;
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
