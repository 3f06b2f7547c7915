/** Describes the training data of a run: a data file's rows as tokens of a model. */
import { reportUnusedLanguage, reportUnusedTemplate } from "../train/without-effect.js";
import { Packing } from "../data/packing.js";
import { describeLabels } from "../data/labels.js";
import { splitByTraining, type TextPart } from "../data/parts.js";
import type { Data } from "../data/read.js";
import { listWarnings } from "../data/report.js";
import type { Example } from "../data/store.js";
import { createNoTokenizerError, type PretrainedModel } from "../models/pretrained.js";
import type { TrainingOptions } from "../train/objective.js";
import { createObjective } from "../train/prepare.js";

/** The number of rows in a range of lengths. */
export interface LengthBin {
  /** The minimum number of tokens. */
  from: number;
  /** The maximum number of tokens. */
  to: number;
  /** The number of rows. */
  rows: number;
}

/** The result of packing rows into sequences. */
export interface InspectedPacking {
  /** The number of sequences. */
  sequences: number;
  /** The mean number of rows in a sequence. */
  rowsPerSequence: number;
  /** The maximum number of rows in a sequence. */
  mostRows: number;
  /** The share of padding if every sequence has `maxLength` tokens. */
  padding: number;
  /** The share of padding if every row is padded to `maxLength` separately. */
  paddingUnpacked: number;
}

/** A class of labelled rows. */
export interface InspectedClass {
  /** The name of the class. */
  label: string;
  /** The number of its rows. */
  rows: number;
}

/** The description of data, as a run would train on it. */
export interface InspectedData {
  /** Identifies the result. */
  kind: "data";
  /** The file; with several, the first and the number of others. */
  file: string;
  /** The number of rows in the file, or of blocks of a running text. */
  rows: number;
  /** The number of rows with trained tokens. */
  kept: number;
  /** The number of truncated rows. */
  cut: number;
  /** The number of skipped rows. */
  dropped: number;
  /** The number of tokens in the kept rows. */
  tokens: number;
  /** The number of trained tokens among them. */
  trainedTokens: number;
  /** The maximum number of tokens in a row. */
  maxLength: number;
  /** The distribution of the kept rows' lengths. */
  lengths: LengthBin[];
  /** The classes of labelled rows, in the order of the model's outputs. */
  classes?: InspectedClass[] | undefined;
  /** The result of packing; undefined for labelled rows. */
  packing?: InspectedPacking | undefined;
  /** Warnings about the rows, such as the reasons for truncating or skipping them: one sentence each. */
  notices: string[];
  /** The first kept rows. */
  first: TextPart[][];
}

/** The options of `inspectData`. */
export interface InspectDataOptions extends Pick<TrainingOptions, "trainOn" | "promptFormat" | "language"> {
  /** The maximum number of tokens in a row. */
  maxLength: number;
  /** The number of rows to show. */
  shown: number;
  /** The names of a classifier's classes; by default the model's. */
  labels?: readonly string[] | undefined;
  /** The file of the given chat template. */
  chatTemplate?: string | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Tokenises data as a run would.
 *
 * Errors: the errors of `createObjective` and of the data's rows; `ERR_FILE_NOT_FOUND` for a model without a tokenizer.
 */
export async function inspectData(
  data: Data,
  model: PretrainedModel,
  options: InspectDataOptions,
): Promise<InspectedData> {
  const { shown, language, chatTemplate, signal } = options;
  const { tokenizer } = model;
  if (tokenizer === undefined) throw createNoTokenizerError(model);
  const objective = createObjective(model, options);
  const { maxLength, modelLength } = objective.tokenisation;
  const store = await objective.createExamples(data, signal);
  const lengths: number[] = [];
  const first: TextPart[][] = [];
  let trainedTokens = 0;
  for (let row = 0; row < store.length; row++) {
    if (store.trainedAt(row) === 0) continue;
    const example = store.at(row) as Example;
    lengths.push(example.ids.length);
    trainedTokens += example.trained;
    const decode = (ids: Int32Array): string => tokenizer.decode(ids, { skipSpecialTokens: false });
    if (first.length < shown) first.push(splitByTraining(example, decode));
  }
  const { reports } = store;
  const sum = (name: "rows" | "cut" | "dropped"): number =>
    reports.reduce((all, report) => all + report[name], 0);
  const classes = countClasses(data, objective.labels);
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
    lengths: groupLengths(lengths),
    ...(objective.packing !== undefined &&
      lengths.length > 0 && { packing: planPacking(lengths, { maxLength, ...objective.packing }) }),
    ...(classes !== undefined && { classes }),
    notices: [
      ...(data.kind === "labels" ? describeLabels(data) : []),
      ...reports.flatMap((report) => listWarnings(report, { maxLength, modelLength })),
      ...reportUnusedLanguage(model, language),
      ...reportUnusedTemplate(model, chatTemplate),
    ],
    first,
  };
}

/** Counts the rows of each class. */
function countClasses(data: Data, labels: readonly string[] = []): InspectedClass[] | undefined {
  if (data.kind !== "labels") return undefined;
  const rows = new Map(labels.map((label) => [label, 0]));
  for (const [label, use] of data.labels) rows.set(String(label), (rows.get(String(label)) ?? 0) + use.rows);
  return Array.from(rows, ([label, count]) => ({ label, rows: count }));
}

function planPacking(
  lengths: readonly number[],
  options: { maxLength: number; separateAbove: number },
): InspectedPacking {
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

/** Counts lengths in ranges between powers of two. */
function groupLengths(lengths: readonly number[]): LengthBin[] {
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
