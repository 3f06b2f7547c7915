/** Maps the turns of a text to tokens. */
import type { Turn } from "./turns.js";

/** The range of each token in the text, in UTF-16 units; tokens of one character all have its whole range. */
export interface Offsets {
  starts: Int32Array;
  ends: Int32Array;
}

/** A range of tokens, without `end`. */
export interface TokenSpan {
  start: number;
  end: number;
}

/**
 * Returns the tokens of each turn: all that overlap it, as in transformers, except that a token crossing a rough end is
 * excluded. Turns without a token are dropped.
 */
export function findTokenSpans(turns: readonly Turn[], { starts, ends }: Offsets): TokenSpan[] {
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
