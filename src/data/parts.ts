/** Rows as text, with what is trained on of them. */
import type { Example } from "./store.js";

/** Text of tokens that are all trained on, or none of them. */
export interface TextPart {
  /** As the tokens decode. */
  text: string;
  /** Whether its tokens are trained on. */
  trained: boolean;
}

/** Whether the `i`th token of a row is one that is predicted in training. A classifier's row has none. */
export function isTrained({ ids, labels }: Pick<Example, "ids" | "labels">, i: number): boolean {
  return i > 0 && labels.length === ids.length && labels[i] === ids[i];
}

/** The row's text as far as `length` tokens, parted where trained tokens begin or end. */
export function partsOf(
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
