/** An adapter from one format of file to another. */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";

import { flag, listOf, numberThat, options, refuse, text } from "../../argument.js";
import type { Device } from "../../device.js";
import { LowrankError, systemCode } from "../../errors.js";
import { makeFolder } from "../../folders.js";
import { moduleOf } from "../../nn/children.js";
import { Sequential } from "../../nn/sequential.js";
import { openWeights, load, mapped, save } from "../../safetensors.js";
import { findBaseModel, storedBaseName } from "./base-model.js";
import { adapterName } from "../options/adapter-name.js";
import { writeConfig } from "./config.js";
import { checkFinite, disposeFile, type AdapterFile } from "./adapter-file.js";
import { copyLabels, copyTemplates, readFolder, writeFolder } from "./folder.js";
import { writeGgufAdapter } from "./gguf.js";
import { checkPrefix, fromKohya, isKohya, toKohya, type KohyaPrefix } from "./kohya.js";
import { layersOf, refuseAttention } from "./layers.js";
import { fromLoralib, isLoralib, toLoralib, type LoralibOptions } from "./loralib.js";
import type { Tensor } from "../../tensor.js";
import { completed } from "../options/options.js";
import type { Targetable, Targets } from "../options/targets.js";
import { FILE_REFUSALS } from "../../refusals/files.js";
import { refused } from "../../refusals/refusal.js";

/** Formats of adapter files; `gguf` is llama.cpp's, which is written and not read. */
export type AdapterFormat = "peft" | "kohya" | "loralib" | "gguf";

const FORMATS: readonly AdapterFormat[] = ["gguf", "peft", "kohya", "loralib"];

/** How an adapter is read that is no folder of PEFT's. */
export interface ReadOptions extends LoralibOptions {
  /** Of several networks in a file of kohya's the one that is meant; in writing, what names begin with. */
  prefix?: KohyaPrefix | undefined;
}

/** What `convertAdapter` takes besides the two paths. */
export interface ConvertOptions extends ReadOptions {
  /** The format that is written. */
  format: AdapterFormat;
  /**
   * The model that the adapter is for: names of kohya's and layers of loralib's are looked up in it, and gguf's names
   * and rows depend on its configuration. Of a folder of PEFT's that names a folder as its base, gguf takes that.
   */
  model?: Targetable | undefined;
  /** Which adapter of a folder that holds several; `default`. */
  name?: string | undefined;
}

/** A path. Throws `ERR_OPTION`. */
export function fileName(where: string, name: string, value: unknown): string {
  return text(where, name, value) === "" ? refuse(where, name, "a path", value) : (value as string);
}

/** Refuses options of reading that are unknown or of another kind: `ERR_OPTION`. */
export function checkReading(where: string, given: ReadOptions): void {
  const { loraAlpha, enableLora, prefix } = options(where, given, ["loraAlpha", "enableLora", "prefix"]);
  if (loraAlpha !== undefined) numberThat(where, "loraAlpha", loraAlpha, Number.isFinite, "a finite number");
  if (enableLora !== undefined) listOf(where, "enableLora", enableLora, flag);
  if (prefix !== undefined) checkPrefix(prefix);
}

/**
 * Reads an adapter, a folder of PEFT's or a file of kohya's or loralib's, whatever its names show it to be.
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_NOT_FINITE`, and what the formats do.
 */
export async function readAdapter(
  path: string,
  name: string,
  model: Targetable | undefined,
  reading: ReadOptions = {},
): Promise<AdapterFile> {
  const read = (await isFolder(path)) ? await readFolder(path, name) : await readFile(path, model, reading);
  try {
    await checkFinite(read.tensors, read.file);
    return read;
  } catch (error) {
    disposeFile(read);
    throw error;
  }
}

/** The same of its header alone: tensors have their shapes, and of their values no more than alphas are read. */
export async function readAdapterHeader(
  path: string,
  name: string,
  model: Targetable | undefined,
): Promise<AdapterFile> {
  const device = "meta:cpu";
  return (await isFolder(path)) ? readFolder(path, name, device) : readFile(path, model, {}, device);
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (cause) {
    const why = systemCode(cause) === "ENOENT" ? "there is no such adapter" : (cause as Error).message;
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: ${why}`, { cause });
  }
}

/** Whose names a file's tensors have; undefined for neither's. */
export function fileKind(names: readonly string[]): "kohya" | "loralib" | undefined {
  return isKohya(names) ? "kohya" : isLoralib(names) ? "loralib" : undefined;
}

async function readFile(
  path: string,
  model: Targetable | undefined,
  reading: ReadOptions,
  device: Device = "cpu",
): Promise<AdapterFile> {
  if (/\.(bin|pt|pth|ckpt)$/.test(path))
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${path}: pickled weights can run any code when read, so they are not; save them as safetensors`,
    );
  const weights = openWeights(path);
  const names = weights.names();
  const kind = fileKind(names);
  if (kind === undefined)
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${path}: its tensors are named neither as kohya's (lora_down, lora_up) nor as loralib's (lora_A, lora_B); of PEFT's adapters name the folder`,
    );
  if (model === undefined) throw refused(FILE_REFUSALS.fileAlone, path, kind);
  const tensors = await load(path, { device });
  for (const key of device === "cpu" ? [] : names.filter((one) => one.endsWith(".alpha"))) {
    tensors[key]?.dispose();
    tensors[key] = mapped(weights, key, "cpu");
  }
  let read: AdapterFile | undefined;
  try {
    read =
      kind === "kohya"
        ? await fromKohya(path, tensors, model, reading.prefix)
        : fromLoralib(path, tensors, weights.metadata(), model, reading);
    return read;
  } finally {
    const kept = new Set(Object.values(read?.tensors ?? {}));
    for (const tensor of Object.values(tensors)) if (!kept.has(tensor)) tensor.dispose();
  }
}

/**
 * Writes the adapter at `dir` in another format: `peft` a folder, `kohya` and `loralib` a
 * safetensors file, `gguf` the file that llama.cpp puts on a model. What a format has no place for is `ERR_OPTION`,
 * which names it.
 */
export async function convertAdapter(dir: string, output: string, given: ConvertOptions): Promise<void> {
  fileName("convertAdapter", "dir", dir);
  fileName("convertAdapter", "output", output);
  const {
    format,
    model,
    name = "default",
    ...reading
  } = options("convertAdapter", given, ["format", "model", "name", "loraAlpha", "enableLora", "prefix"]);
  checkReading("convertAdapter", reading);
  adapterName("convertAdapter", "name", name);
  if (model !== undefined) moduleOf("convertAdapter", "model", model);
  if (!FORMATS.includes(format))
    throw new LowrankError(
      "ERR_OPTION",
      `convertAdapter: there is no format "${String(format)}"; there are ${FORMATS.join(", ")}`,
    );
  const read = await readAdapter(dir, name, model, reading);
  try {
    if (format === "peft") {
      // Only what is left out is completed, which a file has.
      const complete = completed(model ?? new Sequential(), { targetModules: [], ...read.options });
      const { source, revision } = model ?? {};
      const base =
        read.baseModel === undefined
          ? { baseModel: storedBaseName(source, revision), revision }
          : { baseModel: relocatedBase(read), revision: read.revision };
      const targets = read.options.targetModules as Targets;
      await writeFolder(output, read.tensors, writeConfig(complete, targets, base));
      await copyLabels(read.file, output);
      await copyTemplates(read, output);
      return;
    }
    if (format === "gguf") {
      await writeGgufAdapter(output, read, model);
      return;
    }
    const layers = layersOf(read);
    refuseAttention(layers, read.file, format);
    const made: Tensor[] = [];
    try {
      const { tensors, metadata } =
        format === "kohya"
          ? toKohya(layers, read.file, reading.prefix ?? prefixFor(read), made)
          : await toLoralib(layers, read.file, model, made);
      await makeFolder(dirname(output));
      await save(output, tensors, { metadata });
    } finally {
      for (const tensor of made) tensor.dispose();
    }
  } finally {
    disposeFile(read);
  }
}

/** The base model of an adapter that is written into another folder, to which a relative path would not apply. */
function relocatedBase({ file, baseModel, revision }: AdapterFile): string | undefined {
  if (baseModel === undefined || revision !== undefined) return baseModel;
  return findBaseModel(dirname(file), baseModel).path ?? baseModel;
}

/** What kohya calls a model that reads text; all others are the image's. */
function prefixFor({ options: { taskType } }: AdapterFile): KohyaPrefix {
  const text = ["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"];
  return taskType !== undefined && text.includes(taskType) ? "lora_te" : "lora_unet";
}
