/** Unsupported combinations of `finetune`'s options, with each other and with the data. */
import type { Refusal } from "./refusal.js";

const LOADED = "with a model that is loaded";

/** Options that cannot change when resuming: the adapter, the optimizer's state and the position in the data depend on them. */
export const FIXED_OPTIONS = [
  "adapter",
  "lora",
  "seed",
  "batchSize",
  "gradientAccumulation",
  "maxLength",
  "trainOn",
  "packing",
  "evalSplit",
  "dataFormat",
  "language",
  "matmulPrecision",
  "dtype",
  "quantize",
  "optimizer.type",
  "optimizer.loraPlusRatio",
] as const;

export const TRAINING_REFUSALS = {
  loraOfAdapter: {
    what: "options of an adapter",
    where: "that contradict the one that a run starts from (`adapter`)",
    reason: "its tensors have the adapter's layers and ranks",
    instead: "leave them out, or start a new adapter without `adapter`",
  },
  adapterWithoutHead: {
    what: "`adapter`",
    where: "of a language model, with rows that have labels",
    reason: "it has no classification head to train",
    instead: "start from an adapter of a classifier, or leave `adapter` out",
  },
  packedLabels: {
    what: "`packing`",
    where: "of rows that no language model trains on, such as those with labels",
    reason: "their answer is that of a whole sequence",
    instead: "leave `packing` out",
  },
  packedSpeech: {
    what: "`packing`",
    where: "of rows of speech",
    reason: "each is heard by itself",
    instead: "leave `packing` out",
  },
  formatOfRows: {
    what: "`dataFormat`",
    where: "with rows in the place of a file",
    reason: "it says what a file holds",
    instead: "leave it out",
  },
  evaOfSpeech: {
    what: "`initLoraWeights` eva",
    where: "with rows of speech",
    reason: "it starts from batches of texts",
    instead: "choose another start",
  },
  stepsWithEpochs: {
    what: "`steps`",
    where: "with `epochs`",
    reason: "each says how long the run is",
    instead: "give one of them",
  },
  evalDataWithSplit: {
    what: "`evalData`",
    where: "with `evalSplit`",
    reason: "each says which rows are held out",
    instead: "give one of them",
  },
  bothStandardInput: {
    what: "`evalData` from standard input",
    where: "with `data` from there",
    reason: "it is read once",
    instead: "hold out a share of it with `evalSplit`",
  },
  evalEveryAlone: {
    what: "`evalEvery`",
    where: "without `evalData` or `evalSplit`",
    reason: "there is nothing to evaluate",
    instead: "give one of them",
  },
  patienceAlone: {
    what: "`patience`",
    where: "without `evalEvery`, and `evalData` or `evalSplit`",
    reason: "it counts evaluations",
    instead: "give them",
  },
  revisionOfLoaded: {
    what: "`revision` and `offline`",
    where: LOADED,
    reason: "they say which files a hub's name means",
    instead: "leave them out",
  },
  quantizeOfLoaded: {
    what: "`quantize`",
    where: LOADED,
    reason: "its weights are stored as they were loaded",
    instead: "give `quantize` to loadModel",
  },
  templateOfLoaded: {
    what: "`chatTemplate`",
    where: LOADED,
    reason: "it goes with a model's folder",
    instead: "set model.tokenizer.chatTemplate",
  },
  resumeWithOverwrite: {
    what: "`resume`",
    where: "with `overwrite`",
    reason: "it goes on with what `overwrite` would replace",
    instead: "give one of them",
  },
  resumedOptions: {
    what: `other values of ${FIXED_OPTIONS.join(", ")}`,
    where: "in a run that goes on (`resume`)",
    reason: "its adapter, its optimizer's state and its place in the data hang on them",
    instead: "leave it out to go on as before, or start a new run in another folder",
  },
} as const satisfies Record<string, Refusal>;
