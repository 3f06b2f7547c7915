/** Saves models as Hugging Face folders or GGUF files. */
import { existsSync, statSync } from "node:fs";
import { copyFile, readdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";

import {
  checkCallable,
  checkFlag,
  checkChoice,
  checkKnownOptions,
  refuse,
  checkText,
  checkWhole,
} from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { isModule } from "../../nn/module.js";
import { makeFolder, resolveLocation, replaceFolder } from "../../files/folders.js";
import { GGUF_BLOCKS, type GgufType, isFileType } from "../../gguf/types.js";
import { adapters } from "../../lora/adapter/registry.js";
import { TEMPLATE, TOOLS_TEMPLATE, writeTemplates } from "../../lora/formats/folder.js";
import { countElementBytes, save as saveSafetensors, writeWhole } from "../../files/safetensors.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { isBlock, type BlockDType, type DType, type FloatDType, type Tensor } from "../../tensor/tensor.js";
import { readStoredTemplates } from "../chat-template-files.js";
import { checkHalfRange } from "../half-range.js";
import { Classifier } from "../classifier.js";
import { PretrainedModel } from "../pretrained.js";
import { checkAsConfigured } from "./save-check.js";
import { copySentenceFiles } from "../sentence-transformer.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Options of `saveModel`. */
export interface SaveModelOptions {
  /** A folder with safetensors files, or one GGUF file; by default GGUF where the name ends in `.gguf`. */
  format?: "safetensors" | "gguf" | undefined;
  /**
   * The weights' dtype; by default as in memory, and for GGUF as in the GGUF file that the model was loaded from,
   * tensor by tensor. Block formats, such as `q8_0` and `q4_k`, need GGUF.
   */
  dtype?: GgufType | undefined;
  /** The maximum bytes of weights per file; a larger model is sharded; 5e9. */
  maxShardBytes?: number | undefined;
  /**
   * Whether to replace an existing GGUF file, or a model's folder (with a `config.json`) and all its contents; false.
   */
  overwrite?: boolean | undefined;
  /** Called with notices about a GGUF file; by default they are process warnings. */
  onNotice?: ((text: string) => void) | undefined;
  /** Aborts between tensors, or between the files of a folder; partial output is removed. */
  signal?: AbortSignal | undefined;
}

const OPTIONS = [
  "format",
  "dtype",
  "maxShardBytes",
  "overwrite",
  "onNotice",
  "signal",
] as const satisfies (keyof SaveModelOptions)[];

/** The dtypes of a folder's weights. */
type StoredType = FloatDType;

const DTYPES: readonly StoredType[] = ["f32", "f16", "bf16"];
const GGUF_DTYPES: readonly GgufType[] = [...DTYPES, ...GGUF_BLOCKS];

/** Files copied with the weights: tokenizer (current and older formats), generation and preprocessing. */
const COMPANIONS = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "tokenizer.model",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
  "generation_config.json",
  "preprocessor_config.json",
  "processor_config.json",
  TEMPLATE,
  TOOLS_TEMPLATE,
];

/**
 * Saves a model as a folder for transformers, or a language model as a GGUF file for llama.cpp, where `dir` ends in
 * `.gguf` or `format` says so. Output is written to a staging path and renamed at the end; GGUF keeps one tensor at a
 * time in memory. With `overwrite`, `dir` may be the folder that the model was loaded from: where the system cannot
 * move mapped files, as on Windows, its tensors are first copied into memory.
 *
 * Throws `ERR_OPTION` for a model with adapters, which are saved separately or merged first; for modules, tensors or a
 * forward function that the configuration does not describe, such as wrappers around layers; and for GGUF, for a model
 * that llama.cpp would compute differently. Throws `ERR_OUTPUT_EXISTS`, `ERR_WRITE`, `ERR_OUT_OF_MEMORY`, `ERR_DTYPE`
 * for a value beyond f16, for GGUF `ERR_UNSUPPORTED_MODEL` and `ERR_NOT_FINITE`; the signal's reason.
 */
export async function saveModel(
  model: PretrainedModel,
  dir: string,
  options: SaveModelOptions = {},
): Promise<void> {
  const where = "saveModel";
  if (!(isModule(model) && model instanceof PretrainedModel))
    refuse(where, "model", "a pretrained model, as loadModel gives it", model);
  if (checkText(where, "dir", dir) === "") refuse(where, "dir", "the name of a folder", dir);
  const {
    format,
    dtype,
    maxShardBytes,
    overwrite = false,
    onNotice,
    signal,
  } = checkKnownOptions(where, options, OPTIONS);
  if (format !== undefined) checkChoice(where, "format", format, ["safetensors", "gguf"]);
  const gguf = format === undefined ? dir.endsWith(".gguf") : format === "gguf";
  if (dtype !== undefined) checkChoice(where, "dtype", dtype, gguf ? GGUF_DTYPES : DTYPES);
  if (maxShardBytes !== undefined) {
    checkWhole(where, "maxShardBytes", maxShardBytes, 1);
    if (gguf) throw createRefusal(MODEL_REFUSALS.ggufShards, "saveModel");
  }
  checkFlag(where, "overwrite", overwrite);
  if (onNotice !== undefined) checkCallable(where, "onNotice", onNotice);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  signal?.throwIfAborted();
  const attached = adapters(model);
  if (attached.length > 0) {
    throw createRefusal(MODEL_REFUSALS.savedAdapters, "saveModel", attached.join(", "));
  }
  checkAsConfigured(model);
  const quantised = Object.entries(model.stateDict()).find(([, tensor]) => isBlock(tensor.dtype));
  // GGUF can store ggml's block formats; neither file format can store QLoRA's nf4.
  const storable = gguf && quantised !== undefined && isFileType(quantised[1].dtype);
  if (quantised !== undefined && options.dtype === undefined && !storable) {
    const [name, { dtype }] = quantised;
    throw createRefusal(QUANTISED_REFUSALS.saved, "saveModel", `${name}, ${dtype}`, "ERR_DTYPE");
  }
  if (gguf) {
    if (existsSync(dir) && (!overwrite || !statSync(dir).isFile()))
      throw new LowrankError("ERR_OUTPUT_EXISTS", `${dir}: exists; choose another name`);
    const { exportGguf } = await import("../../gguf/export/export.js");
    const notice = onNotice ?? ((text: string): void => process.emitWarning(text));
    await exportGguf(model, dir, dtype, { notice, signal });
    return;
  }
  if (
    existsSync(dir) &&
    (!overwrite || !existsSync(join(dir, "config.json"))) &&
    (await countEntries(dir)) !== 0
  ) {
    throw new LowrankError("ERR_OUTPUT_EXISTS", `${dir}: exists and is not empty; choose another folder`);
  }
  const place = resolveLocation(dir);
  const staging = `${place}.tmp-${process.pid}`;
  try {
    await makeFolder(staging);
    await writeFiles(model, staging, { maxShardBytes, dtype: dtype as StoredType | undefined, signal });
    await replaceFolder(staging, place);
  } catch (error) {
    await rm(staging, { recursive: true, force: true });
    if (error instanceof LowrankError || signal?.aborted === true) throw error;
    throw new LowrankError("ERR_WRITE", `${dir}: ${(error as Error).message}`, { cause: error });
  }
}

/** Counts the entries of a folder; −1 where it is not a folder. */
async function countEntries(dir: string): Promise<number> {
  return readdir(dir).then(
    (names) => names.length,
    () => -1,
  );
}

/** Options of a folder's files. */
interface Folder extends Pick<SaveModelOptions, "maxShardBytes" | "signal"> {
  dtype: StoredType | undefined;
}

async function writeFiles(
  model: PretrainedModel,
  dir: string,
  { dtype, maxShardBytes = 5e9, signal }: Folder,
): Promise<void> {
  const state = Object.entries(model.stateDict()).map(([name, tensor]): [string, Tensor] => [
    model.toFileName(name),
    tensor,
  ]);
  const seen = new Set<Tensor>();
  // A tied head is written once, under the embedding's name.
  const distinct = state.filter(([, tensor]) => !seen.has(tensor) && seen.add(tensor));
  const bytes = ([, tensor]: [string, Tensor]): number =>
    tensor.size * countElementBytes(dtype ?? tensor.dtype);
  const shards: [string, Tensor][][] = [[]];
  let filled = 0;
  for (const entry of distinct) {
    if (filled > 0 && filled + bytes(entry) > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    (shards.at(-1) as [string, Tensor][]).push(entry);
    filled += bytes(entry);
  }
  const names = shards.map((_, i) =>
    shards.length === 1
      ? "model.safetensors"
      : `model-${String(i + 1).padStart(5, "0")}-of-${String(shards.length).padStart(5, "0")}.safetensors`,
  );
  for (const [i, shard] of shards.entries()) {
    signal?.throwIfAborted();
    const tensors = noGrad(() =>
      scope(() =>
        Object.fromEntries(shard.map(([name, t]) => [name, dtype === undefined ? t : t.to(dtype)])),
      ),
    );
    if (dtype === "f16") {
      const halved = shard.flatMap(([name, t]) => {
        const stored = tensors[name] as Tensor;
        return stored === t
          ? []
          : [{ name, stored, original: (): Tensor => noGrad(() => t.to("f32").mul(1)) }];
      });
      await checkHalfRange(`${dir} with dtype f16`, halved);
    }
    await saveSafetensors(join(dir, names[i] as string), tensors, { metadata: { format: "pt" } });
    for (const [name, tensor] of Object.entries(tensors))
      if (tensor !== shard.find(([n]) => n === name)?.[1]) tensor.dispose();
  }
  if (shards.length > 1) {
    const weight_map = Object.fromEntries(
      shards.flatMap((shard, i) => shard.map(([name]) => [name, names[i]])),
    );
    const index = { metadata: { total_size: distinct.reduce((n, e) => n + bytes(e), 0) }, weight_map };
    await writeWhole(join(dir, "model.safetensors.index.json"), JSON.stringify(index, null, 2));
  }
  // Block formats were rejected above where no dtype is given.
  const stored = dtype ?? (distinct[0]?.[1].dtype as FileDType | undefined) ?? "f32";
  await writeWhole(join(dir, "config.json"), await rewriteConfig(model, stored));
  for (const name of COMPANIONS) {
    const from = model.folder === undefined ? undefined : join(model.folder, name);
    const generated = model.companions?.text(name);
    if (from !== undefined && existsSync(from)) {
      await makeFolder(dirname(join(dir, name)));
      await copyFile(from, join(dir, name));
    } else if (generated !== undefined) await writeWhole(join(dir, name), generated);
  }
  // sentence-transformers' modules do not apply to a classifier.
  if (model.folder !== undefined && !(model instanceof Classifier))
    await copySentenceFiles(model.folder, dir);
  // A template assigned to the tokenizer overrides the folder's.
  const { tokenizer } = model;
  const templates = tokenizer?.readCurrentTemplates();
  const before = tokenizer && readStoredTemplates(tokenizer.companions);
  if (templates !== undefined && (templates.text !== before?.text || templates.tools !== before.tools))
    await writeTemplates(dir, templates);
}

/** The dtypes of safetensors files. */
type FileDType = Exclude<DType, BlockDType>;

const TORCH_NAMES: Record<FileDType, string> = {
  f32: "float32",
  f16: "float16",
  bf16: "bfloat16",
  i32: "int32",
};

/** Returns the original configuration with the new dtype. */
async function rewriteConfig(model: PretrainedModel, dtype: FileDType): Promise<string> {
  const text =
    model.folder === undefined ? undefined : await readFile(join(model.folder, "config.json"), "utf8");
  const config = (text === undefined ? model.toHubConfig() : JSON.parse(text)) as Record<string, unknown>;
  Object.assign(config, model.listConfigChanges());
  config["dtype" in config ? "dtype" : "torch_dtype"] = TORCH_NAMES[dtype];
  return `${replaceFloats(JSON.stringify(config, null, 2), text ?? "")}\n`;
}

/** Fields that transformers requires to be floats. */
const FLOATS = [
  "rms_norm_eps",
  "layer_norm_eps",
  "layer_norm_epsilon",
  "initializer_range",
  "init_std",
  "final_logit_softcapping",
  "attn_logit_softcapping",
];

/**
 * Writes whole numbers of float fields with `.0`, as Python does: those in `FLOATS`, and those that were floats in
 * `read`.
 */
function replaceFloats(config: string, read: string): string {
  const were = read.matchAll(/"(\w+)"\s*:\s*-?\d+(?:\.\d+|[eE])/g);
  const floats = new Set([...FLOATS, ...Array.from(were, ([, name]) => name as string)]);
  return config.replace(/^(\s*"(\w+)": -?\d+)(,?)$/gm, (line, start: string, name: string, comma: string) =>
    floats.has(name) ? `${start}.0${comma}` : line,
  );
}
