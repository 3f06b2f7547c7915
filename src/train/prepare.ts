/** A fine-tuning run's data: examples to train on and examples held out. */
import { examplesOf, evalSplit, trainedExamples, type Example } from "../data/examples.js";
import { readData } from "../data/read.js";
import { LowrankError } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import { specialTokens } from "../models/special-tokens.js";
import type { Settings } from "./settings.js";

export interface Prepared {
  train: Example[];
  held: Example[];
  padTokenId: number;
  maxLength: number;
}

/** Reads and tokenises the data. Errors: those of `readData` and `trainedExamples`. */
export async function prepare(
  model: CausalLM,
  data: Awaited<ReturnType<typeof readFiles>>,
  settings: Settings,
): Promise<Prepared> {
  const { tokenizer, config } = model;
  const folder = model.folder ?? "the model";
  if (tokenizer === undefined) {
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: the model has no tokenizer.json`);
  }
  const maxLength = Math.min(settings.maxLength, config.maxPositionEmbeddings);
  const { eosTokenIds, padTokenId } = specialTokens(folder, tokenizer, config);
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
