/** Splits a row's text into trained and untrained parts. */
import type { Example } from "./store.js";

/** A text whose tokens are all trained, or all untrained. */
export interface TextPart {
  /** The decoded tokens. */
  text: string;
  /** Whether its tokens are trained on. */
  trained: boolean;
}

/** Whether training predicts the `i`th token of a row. In a classifier's row none is predicted. */
export function isTrained({ ids, labels }: Pick<Example, "ids" | "labels">, i: number): boolean {
  return i > 0 && labels.length === ids.length && labels[i] === ids[i];
}

/** Decodes the row's first `length` tokens, split where trained tokens begin or end. */
export function splitByTraining(
  row: Pick<Example, "ids" | "labels">,
  decode: (ids: Int32Array) => string,
  length = row.ids.length,
): TextPart[] {
  const parts: TextPart[] = [];
  const end = Math.min(length, row.ids.length);
  for (let from = 0; from < end;) {
    const trained = isTrained(row, from);
    let to = from + 1;
    while (to < end && isTrained(row, to) === trained) to++;
    parts.push({ text: decode(row.ids.subarray(from, to)), trained });
    from = to;
  }
  return parts;
}
