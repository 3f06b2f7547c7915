/** Contents that an adapter file's format cannot express, and files with too little information. */
import type { Refusal } from "./refusal.js";

const PEFT = "keep PEFT's folder, or merge";
const KOHYA = "as a file of kohya's";
const LORALIB = "as a file of loralib's";

export const FILE_REFUSALS = {
  kohyaBeyond: {
    what: "magnitudes (DoRA), biases, and modules or tokens trained in full",
    where: KOHYA,
    reason: "it has lora_down, lora_up and alpha of each layer, and no place for more",
    instead: PEFT,
  },
  kohyaEmbedding: {
    what: "an adapter of an embedding",
    where: KOHYA,
    reason: "its layers are linear or convolutions, and it has no place for others",
    instead: PEFT,
  },
  kohyaConvolution: {
    what: "an adapter of a convolution that is not two-dimensional, or is grouped",
    where: KOHYA,
    reason: "it knows kernels of two dimensions, and has no place for others",
    instead: PEFT,
  },
  kohyaNames: {
    what: "two layers of one name",
    where: KOHYA,
    reason: "dots of a path are underscores there, so that the two would be one",
    instead: PEFT,
  },
  loralibBeyond: {
    what: "magnitudes (DoRA), biases of B (`loraBias`), and modules or tokens trained in full",
    where: LORALIB,
    reason: "it has lora_A, lora_B and bias of each layer, and no place for more",
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
    reason: "it knows square ones",
    instead: PEFT,
  },
  loralibAlpha: {
    what: "a file of loralib's",
    where: "without an alpha",
    reason: "its layers are scaled by it, and the files don't say it",
    instead: "give `loraAlpha`, as it was when the layers were made",
  },
  loralibSlices: {
    what: "merged layers of loralib's",
    where: "without an `enableLora` that says which slices are adapted",
    reason: "the file says how many they are, and not which",
    instead: "give `enableLora`, as it was when the layers were made",
  },
  kohyaNetworks: {
    what: "a file of kohya's",
    where: "with several networks",
    reason: "each is of another model",
    instead: "name the one for this model as `prefix`",
  },
  fileAlone: {
    what: "files of kohya's and loralib's",
    where: "without a model",
    reason: "the names in them are looked up in it",
    instead: "give it",
  },
  peftType: {
    what: "PEFT's adapters of other kinds than LORA",
    where: "by their peft_type",
    reason: "only LoRA is read",
    instead: "merge it in PEFT, and load the model",
  },
  peftKey: {
    what: "keys of adapter_config.json that inject does not take",
    where: "with a value that changes the adapter",
    reason: "what they ask for is not built",
    instead: "train it without, or merge it in PEFT and load the model",
  },
  peftMoved: {
    what: "an adapter of PEFT's that started from the weight (pissa, olora and others)",
    where: "with its own factors",
    reason: "they go with a weight that was moved, and the file does not hold it",
    instead: "save it as a plain one, by path_initial_model_for_weight_conversion",
  },
} as const satisfies Record<string, Refusal>;
