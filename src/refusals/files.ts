/** Contents that an adapter file's format cannot express, and files with too little information. */
import type { Refusal } from "./refusal.js";

const PEFT = "keep PEFT's folder, or merge";
const KOHYA = "in kohya's format";
const LORALIB = "in loralib's format";

export const FILE_REFUSALS = {
  kohyaBeyond: {
    what: "magnitudes (DoRA), biases, and modules or tokens trained in full",
    where: KOHYA,
    reason: "it stores only lora_down, lora_up and alpha of each layer",
    instead: PEFT,
  },
  kohyaEmbedding: {
    what: "an adapter of an embedding",
    where: KOHYA,
    reason: "it supports only linear layers and convolutions",
    instead: PEFT,
  },
  kohyaConvolution: {
    what: "an adapter of a convolution that is not two-dimensional, or is grouped",
    where: KOHYA,
    reason: "it supports only ungrouped two-dimensional kernels",
    instead: PEFT,
  },
  kohyaNames: {
    what: "two layers with equal names",
    where: KOHYA,
    reason: "it replaces the dots of a path by underscores",
    instead: PEFT,
  },
  loralibBeyond: {
    what: "magnitudes (DoRA), biases of B (`loraBias`), and modules or tokens trained in full",
    where: LORALIB,
    reason: "it stores only lora_A, lora_B and bias of each layer",
    instead: PEFT,
  },
  loralibGroups: {
    what: "an adapter of a grouped convolution",
    where: LORALIB,
    reason: "B·A would mix the groups' axes",
    instead: PEFT,
  },
  loralibDimensions: {
    what: "an adapter of a convolution that is not two-dimensional",
    where: LORALIB,
    reason: "B·A does not fit its weight",
    instead: PEFT,
  },
  loralibKernel: {
    what: "an adapter of a convolution whose kernel is not square",
    where: LORALIB,
    reason: "it supports only square kernels",
    instead: PEFT,
  },
  loralibAlpha: {
    what: "a loralib file",
    where: "without an alpha",
    reason: "the scaling depends on it, and the format does not store it",
    instead: "give `loraAlpha`, as it was when the layers were made",
  },
  loralibSlices: {
    what: "merged layers of loralib's",
    where: "without a matching `enableLora`",
    reason: "the file contains the number of adapted slices, but not which they are",
    instead: "give `enableLora`, as it was when the layers were made",
  },
  kohyaNetworks: {
    what: "a kohya file",
    where: "with several networks",
    reason: "each belongs to another model",
    instead: "name the one for this model as `prefix`",
  },
  fileAlone: {
    what: "kohya and loralib files",
    where: "without a model",
    reason: "their layer names are looked up in the model",
    instead: "give it",
  },
  peftType: {
    what: "PEFT adapters other than LoRA",
    where: "according to peft_type",
    reason: "only LoRA is supported",
    instead: "merge it in PEFT, and load the model",
  },
  peftKey: {
    what: "unsupported keys of adapter_config.json",
    where: "with a value that changes the adapter",
    reason: "the feature is not supported",
    instead: "train it without, or merge it in PEFT and load the model",
  },
  peftMoved: {
    what: "a PEFT adapter with a start from the weight (pissa, olora and others)",
    where: "saved without conversion",
    reason: "its factors belong to a modified weight, which the file does not contain",
    instead: "save it as a plain one, by path_initial_model_for_weight_conversion",
  },
} as const satisfies Record<string, Refusal>;
