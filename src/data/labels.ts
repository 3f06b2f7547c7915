/** Classes of labelled rows, and such rows as examples. */
import { LowrankError, throwIfAborted } from "../errors.js";
import { type Encoded, type Encoder, encodeTexts, findEndTokens, runPipeline, truncate } from "./encode.js";
import { checkIds, splitIntoChunks, type OnProgress } from "./examples.js";
import { describeRow, createRowError } from "./source/origin.js";
import type { LabelData, LabelUse, DataChunk } from "./read.js";
import { countRow, countUnused } from "./report.js";
import type { LabelRow } from "./rows.js";
import { findClosest, didYouMean } from "../arguments/suggest.js";
import { ExampleStore } from "./store.js";

/**
 * Returns the class names of the rows, in class order: sorted as text, or by value where all are whole numbers. Where
 * the model already has all of these classes, its class names are returned.
 *
 * Throws `ERR_DATA_ROW` where there is only one class, and for a label that is a misspelled class of the model.
 */
export function resolveLabelNames(
  { file, labels: found }: Pick<LabelData, "file" | "labels">,
  known: readonly string[] = [],
): string[] {
  const labels = [...found.keys()];
  if (labels.every((label) => known.includes(String(label)))) return [...known];
  if (labels.some((label) => known.includes(String(label)))) {
    for (const [label, { first }] of found) {
      const near = didYouMean(String(label), known);
      if (near === "") continue;
      const what = `the label ${JSON.stringify(label)} is not one of the model's classes${near}`;
      throw new LowrankError("ERR_DATA_ROW", `${first}: ${what}; they are ${known.join(", ")}`);
    }
  }
  const numbers = labels.every((label) => typeof label === "number");
  const sorted = numbers ? labels.sort((a, b) => a - b) : [...new Set(labels.map(String))].sort();
  if (sorted.length < 2) {
    const [only] = sorted;
    throw new LowrankError(
      "ERR_DATA_ROW",
      `${file}: every row has the label ${only}; a classifier needs at least two`,
    );
  }
  return sorted.map(String);
}

/** The minimum ratio of row counts between a class and its misspelling. */
const MANY = 20;
/** Above this number of classes, they are not compared pairwise. */
const MOST_COMPARED = 2000;

/**
 * Returns notices about classes that are probably the same: names that differ only in whitespace, case or Unicode form,
 * and rare classes whose name resembles the name of a frequent one.
 */
export function describeLabels({ labels }: Pick<LabelData, "labels">): string[] {
  const uses = new Map<string, LabelUse>();
  for (const [label, use] of labels) {
    const before = uses.get(String(label));
    uses.set(String(label), before === undefined ? use : { ...before, rows: before.rows + use.rows });
  }
  const notices: string[] = [];
  const explainRare = (rare: string, other: string): void => {
    const [few, many] = [uses.get(rare) as LabelUse, uses.get(other) as LabelUse];
    const rows = (count: number): string => `${count} row${count === 1 ? "" : "s"}`;
    notices.push(
      `${few.first}: the label ${JSON.stringify(rare)} (${rows(few.rows)}) is a separate class from ` +
        `${JSON.stringify(other)} (${rows(many.rows)}); if they are the same, give both one name`,
    );
  };
  const folded = new Map<string, string>();
  const byRows = [...uses.keys()].sort((a, b) => (uses.get(b)?.rows ?? 0) - (uses.get(a)?.rows ?? 0));
  for (const label of byRows) {
    const key = label.normalize("NFKC").trim().replaceAll(/\s+/g, " ").toLowerCase();
    const other = folded.get(key);
    if (other !== undefined) explainRare(label, other);
    else folded.set(key, label);
  }
  const names = [...folded.values()];
  if (names.length > MOST_COMPARED) return notices;
  for (const [i, label] of names.entries()) {
    const { rows } = uses.get(label) as LabelUse;
    const frequent = names.slice(0, i).filter((other) => (uses.get(other) as LabelUse).rows >= MANY * rows);
    const near = findClosest(label, frequent);
    if (near !== undefined) explainRare(label, near);
  }
  return notices;
}

/**
 * Tokenises rows of text and label, in file order. Longer texts are truncated, and keep the special tokens at the end.
 *
 * Throws `ERR_DATA_ROW` with file and line for a label not among `names`, and for a row without a token.
 */
export async function tokenizeLabelled(
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
    const what = `the label ${JSON.stringify(label)} is not one of the classes`;
    const near = didYouMean(String(label), names);
    throw new LowrankError("ERR_DATA_ROW", `${first}: ${what}${near}; they are ${names.join(", ")}`);
  }
  const end = findEndTokens(encoder);
  const store = new ExampleStore("classes", vocabSize);
  const encode = async ({ part, read }: DataChunk<LabelRow[]>) => {
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
    for await (const { rows, encoded, read } of runPipeline(
      splitIntoChunks(source.parts(signal)),
      encode,
      signal,
    )) {
      for (const [i, { label, line, unused }] of rows.entries()) {
        countUnused(report, line, unused);
        const complete = encoded[i] as Encoded;
        const ids = truncate(complete.ids, end, maxLength);
        if (ids.length === 0) throw createRowError(source, line, "the row's text has no tokens");
        checkIds(ids, describeRow(source, line), vocabSize);
        store.add(ids, classes.get(String(label)) as number);
        countRow(report, line, { total: complete.total, maxLength, trained: 1 });
      }
      onProgress?.({ file, read, size, tokens: store.tokens });
    }
  }
  return store;
}
