/** Unsupported combinations of `finetune`'s options, with each other and with the data. */
import type { Refusal } from "./refusal.js";

const LOADED = "with a model that is loaded";

export const TRAINING_REFUSALS = {
  loraOfAdapter: {
    what: "adapter options",
    where: "that contradict the adapter to start from (`adapter`)",
    reason: "its layers and ranks are fixed",
    instead: "leave them out, or start a new adapter without `adapter`",
  },
  adapterWithoutHead: {
    what: "`adapter`",
    where: "of a language model, with labelled rows",
    reason: "it has no classification head to train",
    instead: "start from an adapter of a classifier, or leave `adapter` out",
  },
  packedLabels: {
    what: "`packing`",
    where: "of rows that do not train a language model, such as labelled rows",
    reason: "a label applies to a whole sequence",
    instead: "leave `packing` out",
  },
  packedSpeech: {
    what: "`packing`",
    where: "of rows of speech",
    reason: "each recording is a separate input",
    instead: "leave `packing` out",
  },
  formatOfRows: {
    what: "`dataFormat`",
    where: "with rows instead of a file",
    reason: "it describes a file",
    instead: "leave it out",
  },
  evaOfSpeech: {
    what: "`initLoraWeights` eva",
    where: "with rows of speech",
    reason: "it initialises from batches of text",
    instead: "choose another start",
  },
  devicesOfLoaded: {
    what: "several devices (`device`)",
    where: LOADED,
    reason: "each device loads the model",
    instead: "give the model's folder or its name at a hub",
  },
  devicesWithEva: {
    what: "several devices (`device`)",
    where: "with `initLoraWeights` eva",
    reason: "the initialisation runs batches on one device",
    instead: "choose another start, or one device",
  },
  stepsWithEpochs: {
    what: "`steps`",
    where: "with `epochs`",
    reason: "both set the length of the run",
    instead: "give one of them",
  },
  evalDataWithSplit: {
    what: "`evalData`",
    where: "with `evalSplit`",
    reason: "both select the held-out rows",
    instead: "give one of them",
  },
  bothStandardInput: {
    what: "`evalData` from standard input",
    where: "with `data` from there",
    reason: "it can be read only once",
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
    reason: "they select the files of a hub model",
    instead: "leave them out",
  },
  quantizeOfLoaded: {
    what: "`quantize`",
    where: LOADED,
    reason: "its weights are stored as they were loaded",
    instead: "give `quantize` to loadModel",
  },
  offloadOfLoaded: {
    what: "`offloadWeights`",
    where: LOADED,
    reason: "its weights are on its device",
    instead: "give the model's folder or its name at a hub",
  },
  offloadWithStart: {
    what: "`offloadWeights`",
    where: "with `initLoraWeights` pissa or olora",
    reason: "they change the weights, which then stay on the device",
    instead: "choose another start, or leave `offloadWeights` out",
  },
  templateOfLoaded: {
    what: "`chatTemplate`",
    where: LOADED,
    reason: "it applies to a model loaded from a folder",
    instead: "set model.tokenizer.chatTemplate",
  },
  resumeWithOverwrite: {
    what: "`resume`",
    where: "with `overwrite`",
    reason: "it continues the run that `overwrite` would replace",
    instead: "give one of them",
  },
} as const satisfies Record<string, Refusal>;
