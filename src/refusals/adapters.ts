/** What adapters refuse: options against each other, layers against options, adapters against adapters. */
import type { Refusal } from "./refusal.js";

const ONE = "choose one of them";
const CAT = "use cat or svd";

export const ADAPTER_REFUSALS = {
  biasWithDora: {
    what: "loraBias",
    where: "with useDora",
    reason: "a bias of the low-rank product is not defined beside a weight that is rescaled",
    instead: ONE,
  },
  biasWithStart: {
    what: "loraBias",
    where: "with a start by name (initLoraWeights)",
    reason: "such a start says nothing of a bias",
    instead: "take true or false as initLoraWeights",
  },
  doraWithMovedBase: {
    what: "useDora",
    where: "with a start that is taken out of the weight (initLoraWeights pissa, olora)",
    reason: "DoRA rescales the weight, of which that start is no part any more",
    instead: ONE,
  },
  evaDataAlone: {
    what: "evaData",
    where: "without initLoraWeights eva",
    reason: "no other start is from data",
    instead: "leave it out",
  },
  evaWithoutData: {
    what: "initLoraWeights eva",
    where: "without evaData",
    reason: "it starts from what the layers are given",
    instead: "give batches of ids as evaData; finetune takes the run's own",
  },
  evaWithoutLinears: {
    what: "initLoraWeights eva",
    where: "where no linear layer is targeted",
    reason: "it starts linear layers alone",
    instead: "name some in targetModules",
  },
  evaEnding: {
    what: "initLoraWeights eva",
    where: "where it leaves out a layer whose path ends another's",
    reason: "names of targets cannot tell the two apart",
    instead: "leave the layer out yourself, by excludeModules",
  },
  startBeyondLinear: {
    what: "starts by pissa, olora, orthogonal and eva",
    where: "on convolutions and merged layers",
    reason: "they are defined for linear layers, of one weight [out, in]",
    instead: "take another start, or leave the layer out",
  },
  orthogonalOdd: {
    what: "initLoraWeights orthogonal",
    where: "with an odd rank",
    reason: "A and B take the odd and the even rows of one matrix",
    instead: "take an even rank",
  },
  pissaScaling: {
    what: "initLoraWeights pissa",
    where: "with a scaling of 0 or below",
    reason: "A and B share the root of the singular values over the scaling",
    instead: "take a loraAlpha above 0",
  },
  startRank: {
    what: "starts by pissa, pissa_niter_N and olora",
    where: "with a rank above the weight's",
    reason: "a weight has no more directions than its smaller side",
    instead: "take a lower rank, by rankPattern for the layer alone",
  },
  layersPatternAlone: {
    what: "layersPattern",
    where: "without layersToTransform",
    reason: "it says in which lists those count",
    instead: "give both or neither",
  },
  layersWithPattern: {
    what: "layersToTransform",
    where: "with targetModules that are a pattern",
    reason: "a pattern says itself which layers it means",
    instead: "name targets in a list",
  },
  mergedLinear: {
    what: "useDora and loraBias",
    where: "on lora.MergedLinear",
    reason: "they would change the slices that are not enabled, too",
    instead: "leave them out",
  },
  embeddingDropout: {
    what: "loraDropout",
    where: "on lora.Embedding",
    reason: "ids cannot be dropped",
    instead: "leave it out",
  },
  embeddingBias: {
    what: "loraBias",
    where: "on embeddings",
    reason: "what a row is looked up in has no bias",
    instead: "leave it out, or the embedding",
  },
  groupedMerge: {
    what: "merging",
    where: "of an adapter of PEFT's into a grouped convolution",
    reason: "it mixes the channels of all groups, which a grouped weight has no place for",
    instead: "keep it beside the weight",
  },
  groupedDora: {
    what: "PEFT's form",
    where: "of an adapter with magnitudes (DoRA) on a grouped convolution",
    reason: "PEFT's mixes the groups, and has no equal",
    instead: "leave useDora out",
  },
  sameCopy: {
    what: "adapters that count together",
    where: "where both have one module or bias as a copy of their own",
    reason: "only one of the copies can stand there",
    instead: "set one of them at a time",
  },
  adaptedCopy: {
    what: "adapters that count together",
    where: "where one adapts a layer of which the other has a trained copy",
    reason: "only one of them can stand there",
    instead: "set one of them at a time",
  },
  tiedAdapter: {
    what: "ensureWeightTying",
    where: "with a low-rank adapter of the embedding or of what is tied to it",
    reason: "A and B of the two are not tied",
    instead: "leave it out of targetModules, or name it in modulesToSave",
  },
  tiedRows: {
    what: "ensureWeightTying",
    where: "with different rows of layers that share a weight (trainableTokenIndices)",
    reason: "the weight has one set of rows that train",
    instead: "give the same rows",
  },
  tokenLayer: {
    what: "trainableTokenIndices",
    where: "on layers that are no plain embedding or linear layer",
    reason: "rows of their weights are no tokens",
    instead: "name the embedding or the head",
  },
  tokenList: {
    what: "trainableTokenIndices as a list",
    where: "on a model that does not say which is its input embedding",
    reason: "the rows have to be of some layer",
    instead: "give ids by the layer's name",
  },
  swapMerged: {
    what: "hotSwap",
    where: "of an adapter that is merged",
    reason: "the weight holds what it was",
    instead: "unmerge first",
  },
  swapMoved: {
    what: "hotSwap",
    where: "of an adapter that started from the weight (pissa, olora)",
    reason: "no other adapter has that start",
    instead: "load the other under a name of its own",
  },
  swapForm: {
    what: "hotSwap",
    where: "for a larger rank, or across slices or groups that are kept apart",
    reason: "A and B are written over in place",
    instead: "load the other under a name of its own",
  },
  addedCopies: {
    what: "addWeightedAdapter",
    where: "of adapters that train one module or bias in full",
    reason: "copies are no products that could be added",
    instead: "leave one out",
  },
  addedBiases: {
    what: "addWeightedAdapter",
    where: "of adapters that train biases in different ways",
    reason: "an adapter says once which biases it has",
    instead: "leave one out",
  },
  addedRanks: {
    what: "combinations but cat and those by svd",
    where: "of adapters of different ranks",
    reason: "A and B are added element by element",
    instead: CAT,
  },
  addedMoved: {
    what: "combinations but linear, cat and svd",
    where: "of an adapter that started from the weight (pissa, olora)",
    reason: "they add A and B, and its start stands apart",
    instead: CAT,
  },
  addedSpecial: {
    what: "addWeightedAdapter",
    where: "of adapters with magnitudes (DoRA) or a bias (loraBias)",
    reason: "these are no products of A and B",
    instead: "leave it out, or merge it into the weight first",
  },
  fixedA: {
    what: "optim.LoraFA",
    where: "on layers whose outputs are in groups",
    reason: "it is defined for one A and one B a layer",
    instead: "take optim.AdamW",
  },
  layerAlone: {
    what: "saveAdapter",
    where: "of a model that is itself a low-rank layer",
    reason: "a file names layers by their paths in a model",
    instead: "put it into one, such as new nn.Sequential(layer)",
  },
} as const satisfies Record<string, Refusal>;
