/** The classes of a data file's rows, and the rows as examples. */
import { LowrankError, throwIfAborted } from "../errors.js";
import { abortable, ahead, checkIds, chunks, type Encoder, type Example } from "./examples.js";
import type { LabelData } from "./read.js";
import { rowError } from "./rows.js";

/**
 * The names of the classes that a file's rows have: sorted as text, or by their value where all are whole numbers.
 * A class's index is its place. Where a model that tells classes apart already has them all, they are its own.
 *
 * Errors: `ERR_DATA_ROW` where there is but one.
 */
export function labelNames({ file, rows }: LabelData, known: readonly string[] = []): string[] {
  if (rows.every(({ label }) => known.includes(String(label)))) return [...known];
  const labels = [...new Set(rows.map(({ label }) => label))];
  const numbers = labels.every((label) => typeof label === "number");
  const sorted = numbers ? labels.sort((a, b) => a - b) : [...new Set(labels.map(String))].sort();
  if (sorted.length < 2) {
    const [only] = sorted;
    throw new LowrankError(
      "ERR_DATA_ROW",
      `${file}: every row has the label ${only}; a classifier tells two`,
    );
  }
  return sorted.map(String);
}

/** The special tokens that a tokenizer puts behind a text. */
function endOf(encoder: Encoder): Int32Array {
  const [whole, plain] = [encoder.encode("a"), encoder.encode("a", { addSpecialTokens: false })];
  for (let at = 0; at + plain.length <= whole.length; at++) {
    if (plain.every((id, i) => whole[at + i] === id)) return whole.slice(at + plain.length);
  }
  return new Int32Array();
}

/**
 * Tokenises rows of text and label, in the file's order. A longer row loses the end of its text, and keeps the special
 * tokens behind it.
 *
 * Errors: `ERR_DATA_ROW` with file and line for a label that is none of `names`, and for a row without a token.
 */
export async function labelledExamples(
  { file, rows }: LabelData,
  names: readonly string[],
  encoder: Encoder,
  {
    maxLength,
    vocabSize,
    signal,
  }: { maxLength: number; vocabSize?: number; signal?: AbortSignal | undefined },
): Promise<Example[]> {
  throwIfAborted(signal);
  const classes = new Map(names.map((name, index) => [name, index]));
  const stranger = rows.find(({ label }) => !classes.has(String(label)));
  if (stranger !== undefined) {
    const what = `the label ${JSON.stringify(stranger.label)} is none of the classes`;
    throw rowError(file, stranger.line, `${what}; they are ${names.join(", ")}`);
  }
  const end = endOf(encoder);
  const examples: Example[] = [];
  for (const chunk of chunks(rows)) {
    const texts = chunk.map(({ text }) => text);
    const known = await abortable(ahead(encoder, texts, []), signal);
    for (const { text, label, line } of chunk) {
      const ids = cut(known.encode(text), end, maxLength);
      if (ids.length === 0) throw rowError(file, line, "the row's text has no tokens");
      checkIds(ids, `${file}:${line}`, vocabSize);
      examples.push({ ids, labels: Int32Array.of(classes.get(String(label)) as number), trained: 1 });
    }
  }
  return examples;
}

/** The first `maxLength` ids, the last of them `end` where any are left out. */
function cut(ids: Int32Array, end: Int32Array, maxLength: number): Int32Array {
  if (ids.length <= maxLength) return ids;
  const kept = ids.slice(0, maxLength);
  if (end.length < maxLength) kept.set(end, maxLength - end.length);
  return kept;
}
