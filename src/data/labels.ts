/** The classes of rows with labels, and the rows as examples. */
import { LowrankError, throwIfAborted } from "../errors.js";
import { type Encoded, type Encoder, encodeTexts, endOf, pipelined, shortened } from "./encode.js";
import { checkIds, chunks, type OnProgress } from "./examples.js";
import { rowAt, rowError } from "./origin.js";
import type { LabelData, Read } from "./read.js";
import { countRow } from "./report.js";
import type { LabelRow } from "./rows.js";
import { didYouMean } from "../suggest.js";
import { ExampleStore } from "./store.js";

/**
 * The names of the classes that a file's rows have: sorted as text, or by their value where all are whole numbers.
 * A class's index is its place. Where a model that tells classes apart already has them all, they are its own.
 *
 * Errors: `ERR_DATA_ROW` where there is but one, and for a label that is a misspelled class of the model.
 */
export function labelNames(
  { file, labels: found }: Pick<LabelData, "file" | "labels">,
  known: readonly string[] = [],
): string[] {
  const labels = [...found.keys()];
  if (labels.every((label) => known.includes(String(label)))) return [...known];
  if (labels.some((label) => known.includes(String(label)))) {
    for (const [label, { first }] of found) {
      const near = didYouMean(String(label), known);
      if (near === "") continue;
      const what = `the label ${JSON.stringify(label)} is none of the model's classes${near}`;
      throw new LowrankError("ERR_DATA_ROW", `${first}: ${what}; they are ${known.join(", ")}`);
    }
  }
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

/**
 * Tokenises rows of text and label, in the file's order. A longer row loses the end of its text, and keeps the special
 * tokens behind it.
 *
 * Errors: `ERR_DATA_ROW` with file and line for a label that is none of `names`, and for a row without a token.
 */
export async function labelledExamples(
  data: LabelData,
  names: readonly string[],
  encoder: Encoder,
  {
    maxLength,
    vocabSize,
    signal,
    onProgress,
  }: {
    maxLength: number;
    vocabSize?: number | undefined;
    signal?: AbortSignal | undefined;
    onProgress?: OnProgress | undefined;
  },
): Promise<ExampleStore> {
  throwIfAborted(signal);
  const classes = new Map(names.map((name, index) => [name, index]));
  for (const [label, { first }] of data.labels) {
    if (classes.has(String(label))) continue;
    const what = `the label ${JSON.stringify(label)} is none of the classes`;
    const near = didYouMean(String(label), names);
    throw new LowrankError("ERR_DATA_ROW", `${first}: ${what}${near}; they are ${names.join(", ")}`);
  }
  const end = endOf(encoder);
  const store = new ExampleStore("classes", vocabSize);
  const encode = async ({ part, read }: Read<LabelRow[]>) => {
    const texts = part.map(({ text }) => text);
    const limit = maxLength + 1;
    return {
      rows: part,
      read,
      encoded: await encodeTexts(encoder, texts, { addSpecialTokens: true, limit }),
    };
  };
  for (const source of data.sources) {
    const { file, size } = source;
    const report = store.begin(source);
    for await (const { rows, encoded, read } of pipelined(chunks(source.parts(signal)), encode, signal)) {
      for (const [i, { label, line }] of rows.entries()) {
        const whole = encoded[i] as Encoded;
        const ids = shortened(whole.ids, end, maxLength);
        if (ids.length === 0) throw rowError(source, line, "the row's text has no tokens");
        checkIds(ids, rowAt(source, line), vocabSize);
        store.add(ids, classes.get(String(label)) as number);
        countRow(report, line, { total: whole.total, maxLength, trained: 1 });
      }
      onProgress?.({ file, read, size, tokens: store.tokens });
    }
  }
  return store;
}
