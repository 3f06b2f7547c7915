/** Loads models from Hugging Face folders, GGUF files and hubs. */
import { resolve } from "node:path";

import {
  checkCallable,
  checkFlag,
  checkChoice,
  checkKnownOptions,
  refuse,
  checkText,
  checkWhole,
} from "../../arguments/check.js";
import { chooseDevice, findDevices, type Device } from "../../device/device.js";
import { throwIfAborted, LowrankError } from "../../errors.js";
import type { DownloadProgress } from "../../hub/settings.js";
import { measureStoredDifference } from "../../tensor/stored-difference.js";
import type { FloatDType } from "../../tensor/tensor.js";
import { bert } from "../bert/family.js";
import type { CausalLM } from "../causal-lm.js";
import type { Classifier, SequenceClassifier } from "../classifier.js";
import type { ConfigFields } from "../config-fields.js";
import { LIMIT } from "../config-parts.js";
import type { TextEncoder } from "../encoder.js";
import { resolveTask, type Family, type Task } from "../family.js";
import { distilbert } from "../distilbert/family.js";
import { gemma3 } from "../gemma3/family.js";
import { gpt2 } from "../gpt2/family.js";
import { checkHalfRange } from "../half-range.js";
import { llama } from "../llama/family.js";
import { phi3 } from "../phi3/family.js";
import { Offload } from "../offload.js";
import type { PretrainedModel } from "../pretrained.js";
import type { SpeechToText } from "../speech-to-text.js";
import { locate, type Located } from "./locate.js";
import type { StoredModel } from "../stored-model.js";
import { openStoredModel } from "./stored.js";
import { vit } from "../vit/family.js";
import { QUANTIZATIONS, type Quantization } from "../quantization.js";
import type { Tokenizer } from "../tokenizer.js";
import { type Double, FileWeights } from "../weights.js";
import { whisper } from "../whisper/family.js";

/** Options of `loadModel`. */
export interface LoadOptions<T extends Task = Task> {
  /** The device of the weights; by default the default device. */
  device?: Device | undefined;
  /** The weights' dtype; by default as in the file. */
  dtype?: FloatDType | undefined;
  /**
   * Quantise the weights of the blocks' linear layers while reading them, tensor by tensor: to ggml's q8_0, q4_0 or
   * q4_k, or QLoRA's nf4. Embeddings, norms, biases and the head stay in `dtype`. Quantised weights are frozen and take
   * adapters; operations that need the dense weight are refused: merging, DoRA, PiSSA and OLoRA.
   */
  quantize?: Quantization | undefined;
  /** The task of the model; by default from `architectures` in `config.json`. */
  task?: T | undefined;
  /** The number of a classifier's classes; by default as in the file. A head of another size is reinitialised. */
  numLabels?: number | undefined;
  /** A branch, tag or commit of a hub model; alternatively `@revision` in its name. */
  revision?: string | undefined;
  /** The access token for the hub; by default `HF_TOKEN`, or the token stored by `hf auth login`. */
  token?: string | undefined;
  /** Load a hub model from the cache only, without network access; by default as `HF_HUB_OFFLINE` says. */
  offline?: boolean | undefined;
  /** The cache folder of hub models; by default `HF_HUB_CACHE`, or `hub` in `HF_HOME`. */
  cacheDir?: string | undefined;
  /** Aborts loading with its reason. Downloaded parts stay, and the next download resumes from them. */
  signal?: AbortSignal | undefined;
  /** Called with the progress of a download, about ten times a second. */
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Called with notices about tensors that are ignored or reinitialised; by default they are process warnings. */
  onNotice?: ((text: string) => void) | undefined;
}

const OPTIONS = [
  "device",
  "dtype",
  "quantize",
  "task",
  "numLabels",
  "revision",
  "token",
  "offline",
  "cacheDir",
  "signal",
  "onProgress",
  "onNotice",
] as const satisfies (keyof LoadOptions)[];

/** The model class of each task. */
export interface TaskModels {
  /** Language models. */
  "causal-lm": CausalLM;
  /** Classifiers of texts. */
  "sequence-classification": SequenceClassifier;
  /** Classifiers of images. */
  "image-classification": Classifier;
  /** Encoders of texts, without a head. */
  "feature-extraction": TextEncoder;
  /** Models that transcribe speech. */
  "speech-to-text": SpeechToText;
}

/** The supported families. */
const FAMILIES: readonly Family<unknown>[] = [llama, gemma3, phi3, gpt2, bert, distilbert, vit, whisper];

/**
 * Loads a model from a folder with `config.json`, `model.safetensors` (or shards) and `tokenizer.json`, from a GGUF
 * file, or from a hub by its name, `owner/name` or `owner/name@revision`. Its class follows `task`, or else
 * `architectures`. The declared type is the class of `task`; without a task it is the union of the classes, which
 * `instanceof` narrows. On the CPU the weights are memory-mapped.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNSUPPORTED_MODEL`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`,
 * `ERR_OPTION`, and `ERR_DTYPE` for a weight whose row size is not a multiple of the block size of `quantize`; for a
 * hub model also `ERR_HUB` and `ERR_WRITE`.
 */
export async function loadModel<T extends Task = Task>(
  path: string,
  options: LoadOptions<T> = {},
): Promise<TaskModels[T]> {
  checkArguments(path, options);
  throwIfAborted(options.signal);
  return loadLocated(await locate(path, options), options);
}

/** @internal The options of runs. */
export interface LocatedOptions<T extends Task = Task> extends LoadOptions<T> {
  /** A tokenizer that was loaded before: parsing a large vocabulary is slow. */
  tokenizer?: Tokenizer | undefined;
  /** Keep the weights of the blocks' linear layers on the host; a GPU has two blocks at a time. */
  offloadWeights?: boolean | undefined;
}

/** @internal Loads a model that `locate` has found. */
export async function loadLocated<T extends Task = Task>(
  located: Located,
  options: LocatedOptions<T>,
): Promise<TaskModels[T]> {
  const { path } = located;
  const stored = await openStoredModel(path);
  const family = findFamily(stored.config);
  const task = resolveTask(family, stored.config, options.task);
  await findDevices(options.device);
  throwIfAborted(options.signal);
  const { model, weights, doubles } = build(family, task, path, stored, options);
  try {
    await checkHalfRange(`${path} with dtype f16`, weights.halved);
    for (const double of doubles) {
      if (!(await differsFromEmbedding(model, double))) continue;
      const what = `${double.name} differs from the embedding that the configuration ties it to, and is ignored`;
      createNotice(options)(
        `${path}: ${what}; to use it as the head, set tie_word_embeddings to false in config.json`,
      );
    }
    throwIfAborted(options.signal);
  } catch (error) {
    model.dispose();
    throw error;
  }
  model.source = located.source;
  model.revision = located.revision;
  return model;
}

function createNotice({ onNotice }: LoadOptions): (text: string) => void {
  return onNotice ?? ((text: string): void => process.emitWarning(text));
}

/** Whether a file's head tensor differs from the embedding that the configuration ties it to. */
async function differsFromEmbedding(model: PretrainedModel, { tensor }: Double): Promise<boolean> {
  const embedding = (model as { getInputEmbedding?: CausalLM["getInputEmbedding"] }).getInputEmbedding?.()
    .weight;
  if (embedding === undefined || embedding.device.startsWith("meta:")) return false;
  const given = tensor();
  try {
    return (
      embedding.shape.join() !== given.shape.join() || (await measureStoredDifference(embedding, given)) > 0
    );
  } finally {
    given.dispose();
  }
}

/** Throws `ERR_OPTION`. */
function checkArguments(path: string, options: LoadOptions): void {
  const where = "loadModel";
  if (checkText(where, "path", path) === "") refuse(where, "path", "the name of a folder", path);
  const { dtype, quantize, task, numLabels, offline, signal, onNotice, onProgress } = checkKnownOptions(
    where,
    options,
    OPTIONS,
  );
  if (dtype !== undefined) checkChoice(where, "dtype", dtype, ["f32", "f16", "bf16"]);
  if (quantize !== undefined) checkChoice(where, "quantize", quantize, QUANTIZATIONS);
  if (task !== undefined) checkText(where, "task", task);
  if (numLabels !== undefined && !(checkWhole(where, "numLabels", numLabels, 1) <= LIMIT.labels))
    refuse(where, "numLabels", `at most ${LIMIT.labels}`, numLabels);
  for (const name of ["revision", "token", "cacheDir"] as const)
    // The message must not contain the token.
    if (options[name] !== undefined && checkText(where, name, options[name]) === "")
      refuse(where, name, "a non-empty text", "");
  if (offline !== undefined) checkFlag(where, "offline", offline);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  if (onNotice !== undefined) checkCallable(where, "onNotice", onNotice);
  if (onProgress !== undefined) checkCallable(where, "onProgress", onProgress);
}

/** Builds the model of a family and task, with its tokenizer. */
function build<T extends Task>(
  family: Family<unknown>,
  task: Task,
  path: string,
  stored: StoredModel,
  options: LocatedOptions<T>,
): { model: TaskModels[T]; weights: FileWeights; doubles: Double[] } {
  const { numLabels } = options;
  const config = family.read({ ...stored, folder: stored.folder ?? path, numLabels });
  const { device } = chooseDevice(options.device);
  // The CPU reads the host's memory itself.
  const offload =
    options.offloadWeights === true && !/^(meta:)?cpu$/.test(device) ? new Offload(device) : undefined;
  const weights = new FileWeights(stored.weights(), family.naming(config), {
    device,
    dtype: options.dtype,
    quantize: options.quantize,
    offload,
    where: path,
    otherLabels: numLabels !== undefined,
  });
  const make = family.tasks[task] as NonNullable<(typeof family.tasks)[Task]>;
  const model = make(config, weights);
  const doubles: Double[] = [];
  try {
    for (const name of family.doubled?.(config) ?? []) {
      const double = weights.takeDuplicate(name);
      if (double !== undefined) doubles.push(double);
    }
    const notice = createNotice(options);
    for (const message of [...weights.finish(), ...stored.notices]) notice(message);
    model.tokenizer = options.tokenizer ?? stored.tokenizer();
  } catch (error) {
    model.dispose();
    throw error;
  }
  model.offload = offload;
  model.folder = stored.folder;
  model.companions = stored.companions;
  // Only a model from a GGUF file has no folder.
  model.ggufPath = stored.folder === undefined ? resolve(path) : undefined;
  model.eval();
  return { model: model as TaskModels[T], weights, doubles };
}

function findFamily(config: ConfigFields): Family<unknown> {
  const type = config.readString("model_type");
  const supported = FAMILIES.flatMap((family) => family.modelTypes).join(", ");
  if (type === undefined) throw config.createError("model_type", `is missing; supported are ${supported}`);
  const family = FAMILIES.find(({ modelTypes }) => modelTypes.includes(type));
  if (family !== undefined) return family;
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${config.file}: model_type "${type}" is not supported; supported are ${supported}`,
  );
}
