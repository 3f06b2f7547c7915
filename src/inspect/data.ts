/** What a run would train on: a data file's rows as a model's tokens. */
import { unusedLanguage, unusedTemplate } from "../train/without-effect.js";
import { Packing } from "../data/packing.js";
import { labelNotices } from "../data/labels.js";
import { partsOf, type TextPart } from "../data/parts.js";
import type { Data } from "../data/read.js";
import { warningsOf } from "../data/report.js";
import type { Example } from "../data/store.js";
import { noTokenizer, type PretrainedModel } from "../models/pretrained.js";
import type { TrainingOptions } from "../train/objective.js";
import { objectiveOf } from "../train/prepare.js";

/** Rows of as many tokens. */
export interface LengthBin {
  /** The fewest tokens. */
  from: number;
  /** The most tokens. */
  to: number;
  /** How many rows. */
  rows: number;
}

/** Rows that share sequences, as a run that packs them has them. */
export interface InspectedPacking {
  /** How many there are. */
  sequences: number;
  /** Rows of a sequence in the mean. */
  rowsPerSequence: number;
  /** The most rows of a sequence. */
  mostRows: number;
  /** The share of padding where every sequence has `maxLength` tokens. */
  padding: number;
  /** The share where every row by itself has. */
  paddingUnpacked: number;
}

/** A class of rows with labels. */
export interface InspectedClass {
  /** Its name. */
  label: string;
  /** How many rows have it. */
  rows: number;
}

/** Data, as a run would train a model on it. */
export interface InspectedData {
  /** Tells it from what else `inspect` finds. */
  kind: "data";
  /** The file; the first of several, and how many more there are. */
  file: string;
  /** Rows of the file, or blocks of a running text. */
  rows: number;
  /** Rows that are trained on. */
  kept: number;
  /** Rows that are cut. */
  cut: number;
  /** Rows that are left out. */
  dropped: number;
  /** Tokens of the rows that are trained on. */
  tokens: number;
  /** Those of them that are predicted in training. */
  trainedTokens: number;
  /** Tokens that a row may have. */
  maxLength: number;
  /** How long those rows are. */
  lengths: LengthBin[];
  /** The classes of rows with labels, in the order of the model's outputs. */
  classes?: InspectedClass[] | undefined;
  /** What packing makes of them; undefined of rows with labels. */
  packing?: InspectedPacking | undefined;
  /** Why rows are cut or left out, and how they were read: a sentence each. */
  notices: string[];
  /** The first rows that are trained on. */
  first: TextPart[][];
}

/** What `inspectData` takes besides. */
export interface InspectDataOptions extends Pick<TrainingOptions, "trainOn" | "language"> {
  /** Tokens that a row may have. */
  maxLength: number;
  /** How many rows are shown. */
  shown: number;
  /** The names of a classifier's classes; the model's own unless given. */
  labels?: readonly string[] | undefined;
  /** The file of the chat template that was given. */
  chatTemplate?: string | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Tokenises data as a run would.
 *
 * Errors: those of `objectiveOf`, and of the data's rows; `ERR_FILE_NOT_FOUND` for a model without a tokenizer.
 */
export async function inspectData(
  data: Data,
  model: PretrainedModel,
  { maxLength: asked, shown, labels, trainOn, language, chatTemplate, signal }: InspectDataOptions,
): Promise<InspectedData> {
  const { tokenizer } = model;
  if (tokenizer === undefined) throw noTokenizer(model);
  const objective = objectiveOf(model, { labels, maxLength: asked, trainOn, language });
  const { maxLength } = objective.tokenisation;
  const store = await objective.examples(data, signal);
  const lengths: number[] = [];
  const first: TextPart[][] = [];
  let trainedTokens = 0;
  for (let row = 0; row < store.length; row++) {
    if (store.trainedAt(row) === 0) continue;
    const one = store.at(row) as Example;
    lengths.push(one.ids.length);
    trainedTokens += one.trained;
    const decode = (ids: Int32Array): string => tokenizer.decode(ids, { skipSpecialTokens: false });
    if (first.length < shown) first.push(partsOf(one, decode));
  }
  const { reports } = store;
  const sum = (name: "rows" | "cut" | "dropped"): number => reports.reduce((all, one) => all + one[name], 0);
  const classes = classesOf(data, objective.labels);
  return {
    kind: "data",
    file: data.file,
    rows: sum("rows"),
    kept: lengths.length,
    cut: sum("cut"),
    dropped: sum("dropped"),
    tokens: lengths.reduce((sum, length) => sum + length, 0),
    trainedTokens,
    maxLength,
    lengths: binned(lengths),
    ...(objective.packing !== undefined &&
      lengths.length > 0 && { packing: packed(lengths, { maxLength, ...objective.packing }) }),
    ...(classes !== undefined && { classes }),
    notices: [
      ...(data.kind === "labels" ? labelNotices(data) : []),
      ...reports.flatMap((report) => warningsOf(report, maxLength)),
      ...unusedLanguage(model, language),
      ...unusedTemplate(model, chatTemplate),
    ],
    first,
  };
}

/** How many rows each class has. */
function classesOf(data: Data, labels: readonly string[] = []): InspectedClass[] | undefined {
  if (data.kind !== "labels") return undefined;
  const rows = new Map(labels.map((label) => [label, 0]));
  for (const [label, use] of data.labels) rows.set(String(label), (rows.get(String(label)) ?? 0) + use.rows);
  return Array.from(rows, ([label, count]) => ({ label, rows: count }));
}

function packed(lengths: readonly number[], options: { maxLength: number; apart: number }): InspectedPacking {
  const packing = new Packing(Uint32Array.from(lengths), { ...options, seed: 0 });
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const sequences = packing.length;
  const padding = (count: number): number => 1 - tokens / (count * options.maxLength);
  return {
    sequences,
    rowsPerSequence: lengths.length / sequences,
    mostRows: Array.from({ length: sequences }, (_, i) => packing.at(i).length).reduce((a, b) =>
      Math.max(a, b),
    ),
    padding: padding(sequences),
    paddingUnpacked: padding(lengths.length),
  };
}

/** Counts lengths between powers of two. */
function binned(lengths: readonly number[]): LengthBin[] {
  const bins: LengthBin[] = [];
  const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
  for (let from = 1; from <= longest; from *= 2) bins.push({ from, to: 2 * from - 1, rows: 0 });
  for (const length of lengths) {
    const bin = bins[Math.floor(Math.log2(length))];
    if (bin !== undefined) bin.rows++;
  }
  while (bins[0]?.rows === 0) bins.shift();
  return bins;
}
