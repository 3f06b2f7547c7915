/** A fine-tuning run's data: examples to train on and examples held out. */
import { type Encoder, type Example, examplesOf, evalSplit, trainedExamples } from "../data/examples.js";
import { readData } from "../data/read.js";
import { LowrankError } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import { type SpecialTokens, specialTokens } from "../models/special-tokens.js";
import type { Settings } from "./settings.js";

export interface Prepared {
  train: Example[];
  held: Example[];
  padTokenId: number;
  maxLength: number;
}

/**
 * How a model's data becomes tokens: rows of at most `longest`, and never longer than the model takes.
 *
 * Errors: `ERR_FILE_NOT_FOUND` for a model without a tokenizer.
 */
export function tokenisation(
  model: CausalLM,
  longest: number,
): SpecialTokens & { tokenizer: Encoder; maxLength: number } {
  const { tokenizer, config } = model;
  const folder = model.folder ?? "the model";
  if (tokenizer === undefined) {
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: the model has no tokenizer.json`);
  }
  const maxLength = Math.min(longest, config.maxPositionEmbeddings);
  return { ...specialTokens(folder, tokenizer, config), tokenizer, maxLength };
}

/** Tokenises the data. Errors: those of `readData` and `trainedExamples`. */
export async function prepare(
  model: CausalLM,
  data: Awaited<ReturnType<typeof readFiles>>,
  settings: Settings,
): Promise<Prepared> {
  const { tokenizer, maxLength, eosTokenIds, padTokenId } = tokenisation(model, settings.maxLength);
  const { trainOn, signal } = settings;
  const options = { maxLength, eosTokenIds, trainOn, signal };
  let rows = await examplesOf(data.train, tokenizer, options);
  let held: Example[] = [];
  if (data.held !== undefined) {
    held = trainedExamples(await examplesOf(data.held, tokenizer, options), data.held.file, maxLength);
  } else if (settings.evalSplit !== undefined) {
    ({ train: rows, held } = evalSplit(rows, settings.evalSplit));
    held = trainedExamples(held, data.train.file, maxLength);
  }
  return { train: trainedExamples(rows, data.train.file, maxLength), held, padTokenId, maxLength };
}

/** Reads the data files, so that what is wrong with them is told before a model is loaded. */
export async function readFiles({ data, evalData }: Settings) {
  return { train: await readData(data), held: evalData === undefined ? undefined : await readData(evalData) };
}
