/** Models from Hugging Face folders. */
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

import { chooseDevice, type Device } from "../device.js";
import { throwIfAborted, LowrankError } from "../errors.js";
import { openWeights } from "../safetensors.js";
import type { DType } from "../tensor.js";
import { readLlamaConfig } from "./llama/config.js";
import { LlamaForCausalLM } from "./llama/model.js";
import { Tokenizer } from "./tokenizer.js";
import { FileWeights, type Extras } from "./weights.js";

export interface LoadOptions {
  device?: Device;
  /** Storage of the weights; as in the file unless given. */
  dtype?: Exclude<DType, "i32">;
  signal?: AbortSignal;
  /** Told once of what a file carries besides the model. */
  onNotice?: (text: string) => void;
}

/** Buffers of older transformers, and heads of other tasks. */
const LLAMA_EXTRAS: Extras = {
  known: /(^|\.)rotary_emb\.inv_freq$|^score\.(weight|bias)$|^classifier\./,
  prefix: "model.",
};

/**
 * Loads a causal language model from a folder with `config.json`, `model.safetensors` (or shards)
 * and `tokenizer.json`. On the cpu the weights are read where they lie.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNSUPPORTED_MODEL`, `ERR_UNMATCHED_KEY`,
 * `ERR_SHAPE_MISMATCH`.
 */
// A promise by contract: loading reads the disk.
// eslint-disable-next-line @typescript-eslint/require-await
export async function loadModel(path: string, options: LoadOptions = {}): Promise<LlamaForCausalLM> {
  throwIfAborted(options.signal);
  const folder = folderOf(path);
  const config = readLlamaConfig(folder);
  const { device } = chooseDevice(options.device);
  const file = openWeights(path);
  const weights = new FileWeights(file, device, options.dtype, LLAMA_EXTRAS, path);
  const model = new LlamaForCausalLM(config, weights);
  try {
    // A tied head may stand in the file a second time.
    if (config.tieWordEmbeddings) weights.pass("lm_head.weight");
    const extras = weights.finish();
    if (extras.length > 0) {
      const notice = options.onNotice ?? ((text: string): void => process.emitWarning(text));
      notice(
        `${path}: passed over ${extras.length} tensors that this model does not use: ${extras.slice(0, 3).join(", ")}${extras.length > 3 ? ", …" : ""}`,
      );
    }
    const tokenizer = join(folder, "tokenizer.json");
    if (existsSync(tokenizer)) model.tokenizer = new Tokenizer(tokenizer);
  } catch (error) {
    model.dispose();
    throw error;
  }
  model.source = path;
  model.folder = folder;
  model.eval();
  return model;
}

/** The folder that holds a model: the path itself, or where its file lies. */
function folderOf(path: string): string {
  if (!existsSync(path)) {
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: there is no such model folder or file`);
  }
  return statSync(path).isDirectory() ? path : dirname(path);
}
