/** The data of a fine-tuning run: training examples and held-out examples. */
import { type OnProgress, keepTrained } from "../data/examples.js";
import { resolveLabelNames, describeLabels } from "../data/labels.js";
import type { TrainingData } from "../data/given.js";
import { closeData, type Data, readData } from "../data/read.js";
import { isShared } from "../data/shared-data.js";
import { SharedExamples } from "../data/shared-examples.js";
import { type DataReport, describeLoweredLength, type LengthLimits, listWarnings } from "../data/report.js";
import { splitHeldOut } from "../data/split.js";
import type { Examples, StoredExamples } from "../data/store.js";
import { LowrankError } from "../errors.js";
import { CausalLM } from "../models/causal-lm.js";
import { Classifier, SequenceClassifier } from "../models/classifier.js";
import { createNoTokenizerError, type PretrainedModel } from "../models/pretrained.js";
import { SpeechToText } from "../models/speech-to-text.js";
import { findSpecialTokens } from "../models/special-tokens.js";
import { createRefusal } from "../refusals/refusal.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import type { ProgressEvent } from "./events.js";
import { readLabels } from "./label-names.js";
import { agree, type RunRanks } from "./ranks/run-ranks.js";
import {
  Classification,
  LanguageModelling,
  Transcribing,
  type Objective,
  type Tokenisation,
  type TrainingOptions,
} from "./objective.js";
import type { RunContext } from "./run.js";
import type { Settings } from "./settings.js";
import { checkClasses, checkHead } from "./start-adapter.js";

export interface Prepared {
  objective: Objective;
  train: Examples;
  held: Examples;
  /** Per file, the number of rows that were truncated or skipped. */
  reports: DataReport[];
}

/** The data of a run, as read. */
export interface Files {
  train: Data;
  held: Data | undefined;
}

/** The configuration of a model that reads text. */
interface TextConfig {
  vocabSize: number;
  maxPositionEmbeddings: number;
  eosTokenIds?: readonly number[] | undefined;
  padTokenId?: number | undefined;
}

/**
 * Returns the tokenisation of a model's data: rows of at most `longest` tokens, limited to the model's maximum.
 *
 * Errors: `ERR_FILE_NOT_FOUND` for a model without a tokenizer.
 */
export function readTokenisation(model: PretrainedModel, longest: number): Tokenisation {
  const { tokenizer } = model;
  if (tokenizer === undefined) throw createNoTokenizerError(model);
  const config = model.config as TextConfig;
  const { vocabSize, maxPositionEmbeddings: modelLength } = config;
  const maxLength = Math.min(longest, modelLength);
  return { ...findSpecialTokens(tokenizer, config), tokenizer, maxLength, modelLength, vocabSize };
}

/**
 * Returns the objective of a model: classification, language modelling or transcription. `labels` are the names of the
 * classes, by default the model's.
 *
 * Errors: `ERR_UNSUPPORTED_MODEL` for any other model; `ERR_OPTION` for a different number of classes, or if the model has
 * several languages and none is given.
 */
export function createObjective(
  model: PretrainedModel,
  options: TrainingOptions & { labels?: readonly string[] | undefined; maxLength: number },
): Objective {
  const tokens = (): Tokenisation => readTokenisation(model, options.maxLength);
  if (model instanceof CausalLM) return new LanguageModelling(model, tokens(), options);
  if (model instanceof SpeechToText) return new Transcribing(model, tokens(), options);
  const folder = model.folder ?? "the model";
  if (model instanceof Classifier && !(model instanceof SequenceClassifier)) {
    const what = "classifies images, which data files do not have; train it from TypeScript with lora.inject";
    throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${folder}: ${what}`);
  }
  if (!(model instanceof SequenceClassifier)) {
    const what =
      "neither a language model nor a classifier; rows with text and label train it as a classifier";
    throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${folder}: is ${what}`);
  }
  const modelLabels = model.config.labels;
  const labels = options.labels ?? modelLabels;
  if (labels.length !== modelLabels.length) {
    const what = `has ${modelLabels.length} classes, and the data has ${labels.length}: ${labels.join(", ")}`;
    throw new LowrankError("ERR_OPTION", `${folder}: ${what}; load it with numLabels ${labels.length}`);
  }
  return new Classification(model, tokens(), labels, options);
}

/** Milliseconds between two progress events. */
const PROGRESS_MS = 200;

/** Returns a function that emits progress events, at most one per interval. */
export function createProgress(
  stage: ProgressEvent["stage"],
  emit: RunContext["emit"],
): (done: { file: string; read: number; size: number | undefined; tokens?: number | undefined }) => void {
  let last = performance.now();
  return ({ file, read, size, tokens = 0 }) => {
    const now = performance.now();
    if (now - last < PROGRESS_MS) return;
    last = now;
    emit({ type: "progress", stage, file, bytesRead: read, bytes: size ?? null, tokens });
  };
}

/** The rows that events show: the first ones of the training data, and the first prompts. */
export const SHOWN_ROWS = 3;

/**
 * Tokenises the data. Emits progress events, and warnings about its rows. Closes the files afterwards, except for speech,
 * which is read later. `labels` are the classes that the rows name. Ranks agree after each part; each tokenises its part
 * of shared data.
 *
 * Errors: the errors of `readData` and `keepTrained`; the signal's reason, at once.
 */
export async function prepare(
  model: PretrainedModel,
  files: Files,
  labels: readonly string[] | undefined,
  settings: Settings,
  { emit, ranks }: Pick<RunContext, "emit"> & { ranks?: RunRanks | undefined },
): Promise<Prepared> {
  const { maxLength: requestedLength, signal } = settings;
  const warn = (message: string): void => emit({ type: "warning", message });
  try {
    const objective = await agree(ranks, () => createCheckedObjective(model, files, labels, settings));
    const { maxLength, modelLength } = objective.tokenisation;
    const limits = { maxLength, modelLength };
    // A given length that exceeds the model's is reported by a warning; the default by the start event alone.
    if (maxLength < requestedLength && settings.given.includes("maxLength"))
      warn(describeLoweredLength(requestedLength, maxLength));
    for (const data of [files.train, files.held])
      if (data?.kind === "labels") for (const message of describeLabels(data)) warn(message);
    const reports: DataReport[] = [];
    const tokenise = async (data: Data): Promise<StoredExamples> => {
      const onProgress: OnProgress = createProgress("tokenise", emit);
      const store = await agree(ranks, () => objective.createExamples(data, signal, onProgress));
      const joined =
        ranks !== undefined && isShared(data) ? await SharedExamples.join(store, ranks) : undefined;
      const sourceReports = joined?.reports ?? store.reports;
      reports.push(...sourceReports);
      for (const report of sourceReports) for (const message of listWarnings(report, limits)) warn(message);
      return joined?.examples ?? store;
    };
    const rows = await tokenise(files.train);
    const held = files.held && (await tokenise(files.held));
    const sets = await agree(ranks, () => selectRows(rows, held, files, { settings, limits, reports }));
    for (const set of [sets.train, sets.held])
      await set?.keep(Array.from({ length: Math.min(SHOWN_ROWS, set.length) }, (_, row) => row));
    return { objective, train: sets.train, held: sets.held ?? [], reports };
  } finally {
    // The samples of speech are read when a batch needs them.
    for (const data of [files.train, files.held])
      if (data !== undefined && data.kind !== "speech") closeData(data);
  }
}

function createCheckedObjective(
  model: PretrainedModel,
  { train }: Files,
  labels: readonly string[] | undefined,
  settings: Settings,
): Objective {
  const objective = createObjective(model, { ...settings, labels });
  checkHead(settings, objective);
  if (settings.packing && objective.packing === undefined)
    throw createRefusal(TRAINING_REFUSALS.packedLabels, train.file);
  return objective;
}

/** Returns the rows with trained tokens, for training and held out. */
function selectRows(
  rows: StoredExamples,
  held: StoredExamples | undefined,
  files: Files,
  {
    settings,
    limits,
    reports,
  }: {
    settings: Settings;
    limits: LengthLimits;
    reports: readonly DataReport[];
  },
): { train: StoredExamples; held: StoredExamples | undefined } {
  const { evalSplit: share, seed } = settings;
  const keep = (set: StoredExamples, { file }: Data): StoredExamples =>
    keepTrained(set, file, limits, reports);
  if (held !== undefined && files.held !== undefined) {
    const heldOut = keep(held, files.held);
    return { train: keep(rows, files.train), held: heldOut };
  }
  // Skipped rows are removed before the split, so that none is held out.
  const train = keep(rows, files.train);
  return share === undefined ? { train, held: undefined } : splitHeldOut(train, share, seed);
}

/** Reads training or held-out data. `name` is its option. */
export type ReadGiven = (given: TrainingData, name: "data" | "evalData") => Promise<Data>;

/**
 * Reads the data files completely, so that invalid rows are reported before a model is loaded. Texts and rows are not
 * kept in memory.
 */
export async function readFiles({ data, evalData }: Settings, read: ReadGiven): Promise<Files> {
  const train = await read(data, "data");
  try {
    return { train, held: evalData === undefined ? undefined : await read(evalData, "evalData") };
  } catch (error) {
    closeData(train);
    throw error;
  }
}

/** Returns a function that reads data whole, and emits progress events. */
export function createReader(
  { dataFormat: format, signal }: Settings,
  { emit }: Pick<RunContext, "emit">,
): ReadGiven {
  return (given, name) => readData(given, { format, name, signal, onProgress: createProgress("read", emit) });
}

/**
 * Returns the classes of the training rows, the model's in its order; undefined for rows without labels. `model` is a
 * loaded model or a folder, and `adapter` the classes of the start adapter.
 */
export function findClasses(
  { train }: Files,
  model: string | PretrainedModel,
  adapter?: readonly string[],
): string[] | undefined {
  if (train.kind !== "labels") return undefined;
  if (adapter !== undefined) checkClasses(train, adapter);
  if (adapter !== undefined) return [...adapter];
  return resolveLabelNames(train, typeof model === "string" ? readLabels(model) : readClasses(model));
}

/** Removes the temporary files that hold data from streams. */
export function closeFiles({ train, held }: Files): void {
  closeData(train);
  if (held !== undefined) closeData(held);
}

/** Returns the classes of a loaded classifier. */
function readClasses(model: PretrainedModel): readonly string[] | undefined {
  return model instanceof SequenceClassifier ? model.config.labels : undefined;
}
