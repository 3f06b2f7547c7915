/** A fine-tuning run's data: examples to train on and examples held out. */
import { type Example, evalSplit, trainedExamples } from "../data/examples.js";
import { labelNames } from "../data/labels.js";
import { type Data, readData } from "../data/read.js";
import { LowrankError } from "../errors.js";
import { CausalLM } from "../models/causal-lm.js";
import { SequenceClassifier } from "../models/classifier.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { specialTokens } from "../models/special-tokens.js";
import { readLabels } from "./label-names.js";
import {
  Classification,
  LanguageModelling,
  type Objective,
  type Tokenisation,
  type TrainingOptions,
} from "./objective.js";
import type { Settings } from "./settings.js";

export interface Prepared {
  objective: Objective;
  train: Example[];
  held: Example[];
}

/** The data files of a run. */
export interface Files {
  train: Data;
  held: Data | undefined;
  /** The classes of the rows to train on; undefined where they have none. */
  labels: string[] | undefined;
}

/** What the configuration of a model that reads text says. */
interface TextConfig {
  vocabSize: number;
  maxPositionEmbeddings: number;
  eosTokenIds?: readonly number[];
  padTokenId?: number | undefined;
}

/**
 * How a model's data becomes tokens: rows of at most `longest`, and never longer than the model takes.
 *
 * Errors: `ERR_FILE_NOT_FOUND` for a model without a tokenizer.
 */
export function tokenisation(model: PretrainedModel, longest: number): Tokenisation {
  const { tokenizer } = model;
  const folder = model.folder ?? "the model";
  if (tokenizer === undefined) {
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: the model has no tokenizer.json`);
  }
  const config = model.config as TextConfig;
  const maxLength = Math.min(longest, config.maxPositionEmbeddings);
  const { vocabSize } = config;
  return { ...specialTokens(folder, tokenizer, config), tokenizer, maxLength, vocabSize };
}

/**
 * What a model is trained for: to tell classes apart, or the next token. `labels` are the names of the classes; the
 * model's own unless given.
 *
 * Errors: `ERR_UNSUPPORTED_MODEL` for a model that does neither; `ERR_OPTION` for one of another number of classes.
 */
export function objectiveOf(
  model: PretrainedModel,
  options: TrainingOptions & { labels?: readonly string[] | undefined; maxLength: number },
): Objective {
  const tokens = (): Tokenisation => tokenisation(model, options.maxLength);
  if (model instanceof CausalLM) return new LanguageModelling(model, tokens(), options);
  const folder = model.folder ?? "the model";
  if (!(model instanceof SequenceClassifier)) {
    const what = "neither a language model nor a classifier; rows of text and label make a classifier of it";
    throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${folder}: is ${what}`);
  }
  const own = model.config.labels;
  const labels = options.labels ?? own;
  if (labels.length !== own.length) {
    const what = `tells ${own.length} classes apart, and the data has ${labels.length}: ${labels.join(", ")}`;
    throw new LowrankError("ERR_OPTION", `${folder}: ${what}; load it with numLabels ${labels.length}`);
  }
  return new Classification(model, tokens(), labels, options);
}

/** Tokenises the data. Errors: those of `readData` and `trainedExamples`. */
export async function prepare(model: PretrainedModel, files: Files, settings: Settings): Promise<Prepared> {
  const { maxLength, trainOn, labelSmoothing, signal } = settings;
  const objective = objectiveOf(model, { labels: files.labels, maxLength, trainOn, labelSmoothing });
  const trained = (rows: Example[], { file }: Data): Example[] =>
    trainedExamples(rows, file, objective.tokenisation.maxLength);
  let rows = await objective.examples(files.train, signal);
  let held: Example[] = [];
  if (files.held !== undefined) {
    held = trained(await objective.examples(files.held, signal), files.held);
  } else if (settings.evalSplit !== undefined) {
    ({ train: rows, held } = evalSplit(rows, settings.evalSplit));
    held = trained(held, files.train);
  }
  return { objective, train: trained(rows, files.train), held };
}

/** Reads the data files, so that what is wrong with them is told before a model is loaded. */
export async function readFiles({ model, data, evalData }: Settings): Promise<Files> {
  const train = await readData(data);
  const held = evalData === undefined ? undefined : await readData(evalData);
  if (train.kind !== "labels") return { train, held, labels: undefined };
  const own = typeof model === "string" ? readLabels(model) : classesOf(model);
  return { train, held, labels: labelNames(train, own) };
}

/** The classes that a loaded model tells apart. */
function classesOf(model: PretrainedModel): readonly string[] | undefined {
  return model instanceof SequenceClassifier ? model.config.labels : undefined;
}
