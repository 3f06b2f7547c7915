/**
 * For each remedy in words, such as "unmerge first": the test that follows it, or the reason why none does. A
 * message is identified by a part of its text.
 */
import type { Message } from "./collect.js";

const HERE = "test/recommendations/remedies.test.ts: ";
const FIRST = `${HERE}adapters: unmerge first, another name`;
const WEIGHT = `${HERE}adapters: a weight instead of a repeated name, one of two forms, a Sequential around a layer`;
const COMBINED = `${HERE}adapters: combinations by cat or svd`;
const SAVED = `${HERE}saveModel: adapters merged`;
const MODELS = `${HERE}models: ids without a tokenizer`;
const TENSORS = `${HERE}tensors: conversions by to()`;
const DATA = `${HERE}data: unpacked, encoded`;
const FIELDS = "test/cli/fields.test.ts: a field with a meaning that the row does not use is refused";
const HEADERLESS = "test/cli/fields.test.ts: a CSV file without a header, and lines that end in commas";
const DIVERGED = "test/train/divergence.test.ts: a run that diverges names the last good checkpoint";

const SWEEP = "test/train/sweep-options.test.ts: the remedies of the messages help";

/** Remedies, and the test that follows each. */
export const FOLLOWED_REMEDIES: readonly (readonly [says: string, test: string])[] = [
  [
    "use …, ……",
    "test/cli/foreign-names.test.ts: what the messages of finetune and generate advise is accepted",
  ],
  ["name fewer devices", "test/train/devices.test.ts: a device without rows is refused"],
  [
    "give all ranks the same file",
    "test/train/shared-data.test.ts: ranks that see other files under the same path throw one error",
  ],
  [
    "start fewer ranks",
    "test/train/ranks.test.ts: all ranks throw one error for options and data that differ",
  ],
  [
    "start all ranks with the same version, options and files",
    "test/train/ranks.test.ts: all ranks throw one error for options and data that differ",
  ],
  ["there is no space; give the values to compare", "test/cli/sweep.test.ts: one line, and status 2: "],
  [
    "the space is empty; give the values",
    "test/train/sweep-options.test.ts: refused before anything is read: ",
  ],
  ["take them off with deleteAdapter first", FIRST],
  ["load it as another one", FIRST],
  ["give it a weight instead", WEIGHT],
  ["give it one more with inject", WEIGHT],
  ["put it in an nn.Sequential, or use", WEIGHT],
  ["is trained in full by modulesToSave; choose one", COMBINED],
  ["has a low-rank adapter too; choose one", COMBINED],
  ["keep the adapter unmerged", COMBINED],
  ["exists; choose another name", SAVED],
  ["exists and is not empty; choose another folder", SAVED],
  ["read logits in the scope", MODELS],
  ["read logits before that", MODELS],
  ["give token ids as an Int32Array", MODELS],
  ["pass null as ids", MODELS],
  ['convert with to("f32")', TENSORS],
  ["convert it with to(", TENSORS],
  ["detach() makes one", TENSORS],
  ["give one of size and scaleFactor", TENSORS],
  ["ModuleList: cannot run as a module", TENSORS],
  ["unpack it first", DATA],
  ["save it as UTF-8", DATA],
  ["quote the field and double", DATA],
  ["quote fields with commas", DATA],
  ['columns are named "…"; remove one', DATA],
  ['the row has both "…" and "…"; remove one', DATA],
  ["unknown column ……; rename it", DATA],
  ["if it is a row, put a header above it", HEADERLESS],
  ["remove the commas at the ends of lines", HEADERLESS],
  ["to train on the good answers, …, or train with", FIELDS],
  ["keep the rows with … true and remove the field", FIELDS],
  ['write both into "text", or remove the field', FIELDS],
  ["write the row as …, or remove the field", FIELDS],
  ['rename "chosen" to "…" and remove …"rejected"', FIELDS],
  ['"system" that differs from its system message; remove one of them', FIELDS],
  ["give the data's format, json", DATA],
  ["give every row one, or none", DATA],
  ["write both halves", DATA],
  [
    "train it from TypeScript with lora.inject",
    "test/train/classification.test.ts: a model of images is refused without advice about texts",
  ],
  [
    "make both strings, or both arrays of messages",
    "test/recommendations/recommendations.test.ts: rows of prompt and completion with a chat template",
  ],
  ["try a lower learning rate or a longer warm-up", DIVERGED],
  [
    "Trainer: save … is neither",
    "test/train/trainer-continued.test.ts: is no folder; a folder that exists is one",
  ],
  [
    "Trainer: … is after step",
    "test/train/trainer-continued.test.ts: a run that is to end before its checkpoint",
  ],
  ["resume: … is after step", "test/recommendations/recommendations.test.ts: more steps"],
  [
    "To resume from a bad checkpoint, give its folder as resume",
    "test/train/trainer-continued.test.ts: a bad checkpoint is accepted when named, with a warning",
  ],
  [
    "or // for a message that starts with a slash",
    "test/cli/chat.test.ts: /help, /reset and /exit are commands",
  ],
  [
    "move it away, or choose another folder",
    "test/recommendations/recommendations.test.ts: a folder that contains a run",
  ],
];

/** Reasons why no test follows a remedy. */
const OUTSIDE = "a step outside of the program: other software, the network, the file system";
const FORM = "asks for input of the form that the tests of the option or the function use throughout";
const STATEMENT = "recommends nothing";

/** Remedies without a test. */
export const LISTED_REMEDIES: readonly (readonly [says: string, why: string])[] = [
  ["use the same kind of device on all ranks", OUTSIDE],
  ["start them by the mpirun of the MPI library that is used here", "it needs two MPI libraries"],
  ["install it beside lowrank (npm install", "npm run test:mpi installs it"],
  ["has no function connect; install its current version", "no other version of lowrank-mpi exists"],
  ["(did you mean …?); rename or remove it", FORM],
  ["…: …; rename or remove it", FORM],
  ["; rename …", FORM],
  ["write one row a line (jq -c . FILE)", OUTSIDE],
  ["write the file with smaller pages", OUTSIDE],
  ["if they are the same, give both one name", FORM],
  ["if those are the rows, give the array alone", FORM],
  ["is inside an archive, where the engine cannot read it", OUTSIDE],
  ["but only text can be used; remove the message", FORM],
  ["but only its text can be used; remove the row", FORM],
  ["write the call as tool_calls", FORM],
  ["start a new conversation, with", STATEMENT],
  ["exists: name one that doesn't", FORM],
  ["exists: name … that doesn't", FORM],
  ["a .txt, .jsonl, .ndjson, .json, .csv or .parquet file", STATEMENT],
  ["open it at ui.perfetto.dev", OUTSIDE],
  ["which a command-line prompt does not support", FORM],
  ["which predict writes; rename or remove it", FORM],
  ["is given twice; give it once", FORM],
  ["there is no option …; use …", FORM],
  ["give a command, one of", STATEMENT],
  ["stopped after step ……; resume with", STATEMENT],
  ["…; use one of", FORM],
  ["continue from step … with …", STATEMENT],
  ["put a TLS proxy in front", OUTSIDE],
  ["; use auto, cpu, gpu", FORM],
  ["open the address that was printed", FORM],
  ["If it saved a checkpoint, continue it", STATEMENT],
  ["give another port, or none for a free one", FORM],
  ["name 1 to … runs", STATEMENT],
  ["is a file; give a folder of runs", FORM],
  ["pages are open already; close one", OUTSIDE],
  ["reinstall the package, or build it", OUTSIDE],
  ["give the data's format, …", FORM],
  ["rename or remove it", FORM],
  ["and a row is an object on one line; write one row a line", FORM],
  ["write the file with smaller pages", OUTSIDE],
  ["if they are the same, give both one name", FORM],
  ["cast to ", STATEMENT],
  ["pad by a constant", STATEMENT],
  ["pad, …", STATEMENT],
  ["out of the bundle, and the fuse RunAsNode", OUTSIDE],
  ["leave it unchanged until training has begun", OUTSIDE],
  ["name it .parquet, or give the data's format, parquet", FORM],
  ["set TMPDIR", OUTSIDE],
  ["call it in a utility process", OUTSIDE],
  ["install one, and build the page's bundle again", OUTSIDE],
  ["start it again with resume: true", OUTSIDE],
  ["close that, or choose another folder", OUTSIDE],
  ["store it as bf16 or f32", FORM],
  ["it was removed: try again", OUTSIDE],
  ["check the connection", OUTSIDE],
  ["try again later", OUTSIDE],
  ["it has no revision …; see", OUTSIDE],
  ["it has been disabled; see", OUTSIDE],
  ["set another in HF_TOKEN", OUTSIDE],
  ["a private one needs a token", OUTSIDE],
  ["a file in its listing is missing", OUTSIDE],
  ["move the cache with HF_HOME", OUTSIDE],
  ["check HF_ENDPOINT", OUTSIDE],
  ["name its base model", FORM],
  ["look for a conversion to safetensors", OUTSIDE],
  ["give the name of a branch or a tag", FORM],
  ["which contradicts the name; give one of them", FORM],
  ["it has no headers to read; save it", FORM],
  ["set tokenizer.chatTemplate, or give finetune", FORM],
  ["set it in the model's folder as chat_template.jinja", FORM],
  ["pickled weights can run any code", OUTSIDE],
  ["the adapters are in folders below it", FORM],
  ["the adapter is cut into shards", OUTSIDE],
  ["give loraAlpha", FORM],
  ["take a lower rank", FORM],
  ["write it without the one or the other", FORM],
  ["leave tokenTypeIds out", FORM],
  ["set truncation", FORM],
  ["set padding, or make them equally long", FORM],
  ["its weights next to a config.json", FORM],
  ["set tie_word_embeddings to false", FORM],
  ["split it, and its text", FORM],
  ["pass padTokenId", FORM],
  ["by its context size, not by the text", OUTSIDE],
  // llama.cpp's own tool, which this package's registry does not provide.
  ["pass it to llama.cpp with", OUTSIDE],
  ["join them first (llama-gguf-split", OUTSIDE],
  ["take one that has, or assign model.tokenizer", FORM],
  ["forward: give labels or decoderInputIds", FORM],
  ["convert them to model.safetensors", OUTSIDE],
  ["give the language that is spoken", FORM],
  ["the model is English-only", FORM],
  ["reinstall the package of this version", OUTSIDE],
  ["ModuleDict: cannot run as a module", FORM],
  ["make it smaller, or free what is not needed", FORM],
  ["use the lowrank that wrote it", OUTSIDE],
  ["is not supported; leave it out", FORM],
  ["max_tokens and max_completion_tokens", FORM],
  ["chat template ignores …; leave them out", FORM],
  ["ignores the content of a message; leave the message out", FORM],
  ["cannot listen on", OUTSIDE],
  ["move it with to()", FORM],
  ["nothing is being learned; check", FORM],
  ["the updates do not change it; check", FORM],
  ["try dtype f32", FORM],
  ["try the adapter before you use it", FORM],
  ["be rebuilt from its configuration; give its folder", FORM],
  ["free some space", OUTSIDE],
  ["if it has ended, remove", OUTSIDE],
  ["wait for it, stop it, or choose another folder", OUTSIDE],
  ["load it with numLabels", FORM],
  ["resume with the original, or start a new run", FORM],
  ["give the folder of an adapter", FORM],
  ["load the model that the run began with", FORM],
  ["create it for each batch, or give release", FORM],
  ["has no batches for epoch", FORM],
  ["make it synchronous", FORM],
  ["return one value, the mean", FORM],
  ["give output, or the checkpoint's folder as resume", FORM],
  ["give one of steps and epochs", FORM],
  ["so that output has no effect", FORM],
  ["keep limits the checkpoints in output", FORM],
  ["make it from model.parameters()", FORM],
  ["make … of them with to(", FORM],
  ["stop takes at most … texts", STATEMENT],
  ["Trainer: save", STATEMENT],
];

/**
 * Refusals whose `instead` names no option and no command, by section: a test that follows it, or the reason why
 * none does.
 */
export const REFUSALS_IN_WORDS: Readonly<Record<string, string>> = {
  "Adapters: swapMerged": FIRST,
  "Adapters: layerAlone": WEIGHT,
  "Adapters: addedRanks": COMBINED,
  "Models: savedAdapters": SAVED,
  "Sweeps: loadedModel": SWEEP,
  "Sweeps: sharedOption": SWEEP,
  "Sweeps: resumedSweep": "test/train/sweep.test.ts: a sweep that is stopped saves its trials",
  "Sweeps: dividedSweep": SWEEP,
  ...Object.fromEntries(
    [
      "biasWithDora doraWithMovedBase evaDataAlone startBeyondLinear orthogonalOdd layersPatternAlone layersWithPattern",
      "mergedLinear embeddingDropout embeddingBias groupedMerge sameCopy adaptedCopy tiedRows ownForwardRows boundCopy",
      "ownFromBase attentionFormat tokenLayer tokenList swapMoved swapForm addedCopies addedBiases addedMoved",
      "addedSpecial fixedA",
    ].flatMap((keys) => keys.split(" ").map((key) => [`Adapters: ${key}`, FORM])),
  ),
  ...Object.fromEntries(
    [
      "kohyaBeyond kohyaEmbedding kohyaConvolution kohyaNames loralibBeyond loralibGroups loralibDimensions",
      "loralibKernel fileAlone",
    ].flatMap((keys) => keys.split(" ").map((key) => [`Adapters in files: ${key}`, FORM])),
  ),
  // These remedies are applied in PEFT.
  ...Object.fromEntries(
    ["peftType", "peftKey", "peftMoved"].map((key) => [`Adapters in files: ${key}`, OUTSIDE]),
  ),
  ...Object.fromEntries(
    [
      "convolutions adapterFamily modelFamily rope scores activation modelBiases headSize tokenizer preTokenizer vocabulary",
    ].flatMap((keys) => keys.split(" ").map((key) => [`GGUF: ${key}`, FORM])),
  ),
  // Another model is used.
  ...Object.fromEntries(
    ["quantised", "decoding", "attentionCap", "partialRotary", "ropeScaling", "phiScaling"].map((key) => [
      `Models: ${key}`,
      OUTSIDE,
    ]),
  ),
  ...Object.fromEntries(
    ["packedAdapters", "smoothedLabels", "ggufShards", "revisionOfFolder", "savedOwn"].map((key) => [
      `Models: ${key}`,
      FORM,
    ]),
  ),
  "Layers: samePadding": FORM,
  "Layers: maxNorm": FORM,
  ...Object.fromEntries(
    [
      "formatOfRows evaOfSpeech stepsWithEpochs evalDataWithSplit evalEveryAlone patienceAlone revisionOfLoaded",
      "templateOfLoaded resumeWithOverwrite resumedOptions devicesOfLoaded devicesWithEva offloadOfLoaded",
    ].flatMap((keys) => keys.split(" ").map((key) => [`Runs: ${key}`, FORM])),
  ),
  ...Object.fromEntries(
    ["promptWithMessages", "dashboardAsJson", "shardsOfGguf"].map((key) => [
      `The command line: ${key}`,
      FORM,
    ]),
  ),
};

/** Whether a remedy has an entry. */
export function isCovered({ text }: Message): boolean {
  return [...FOLLOWED_REMEDIES, ...LISTED_REMEDIES].some(([says]) => text.includes(says));
}
