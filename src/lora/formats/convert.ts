/** Reads adapter files of any format and converts them. */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";

import {
  checkFlag,
  checkList,
  checkNumberThat,
  checkKnownOptions,
  refuse,
  checkText,
} from "../../arguments/check.js";
import type { Device } from "../../device/device.js";
import { LowrankError, readSystemCode } from "../../errors.js";
import { makeFolder } from "../../files/folders.js";
import { checkModule } from "../../nn/children.js";
import { Sequential } from "../../nn/sequential.js";
import { mapTensor, readAll, readWeights, save } from "../../files/safetensors.js";
import { findBaseModel, resolveBaseName } from "./base-model.js";
import { checkAdapterName } from "../options/adapter-name.js";
import { writeConfig } from "./config.js";
import { checkFinite, disposeFile, type AdapterFile } from "./adapter-file.js";
import { copyLabels, copyTemplates, readFolder, writeFolder } from "./folder.js";
import { writeGgufAdapter } from "./gguf.js";
import { checkPrefix, convertFromKohya, isKohya, convertToKohya, type KohyaPrefix } from "./kohya.js";
import { sortTensors, refuseAttention } from "./layers.js";
import { convertFromLoralib, isLoralib, convertToLoralib, type LoralibOptions } from "./loralib.js";
import type { Tensor } from "../../tensor/tensor.js";
import { completeOptions } from "../options/options.js";
import type { Targetable, Targets } from "../options/targets.js";
import { FILE_REFUSALS } from "../../refusals/files.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Formats of adapter files. `gguf` is llama.cpp's; it can be written but not read. */
export type AdapterFormat = "peft" | "kohya" | "loralib" | "gguf";

const FORMATS: readonly AdapterFormat[] = ["gguf", "peft", "kohya", "loralib"];

/** Options for reading an adapter that is not a PEFT folder. */
export interface ReadOptions extends LoralibOptions {
  /** The kohya network to read, if the file holds several; for writing, the prefix of all names. */
  prefix?: KohyaPrefix | undefined;
}

/** Options of `convertAdapter`. */
export interface ConvertOptions extends ReadOptions {
  /** The format to write. */
  format: AdapterFormat;
  /**
   * The model of the adapter. Reading kohya's and loralib's names needs its layers, and writing gguf its configuration.
   * For gguf, a PEFT adapter whose base model is a local folder does not need it.
   */
  model?: Targetable | undefined;
  /** The adapter to read, if a folder holds several. Default: `default`. */
  name?: string | undefined;
}

/** Validates a path. Throws `ERR_OPTION`. */
export function checkPath(where: string, name: string, value: unknown): string {
  return checkText(where, name, value) === "" ? refuse(where, name, "a path", value) : (value as string);
}

/** Validates reading options. Throws `ERR_OPTION` for unknown ones and wrong types. */
export function checkReading(where: string, given: ReadOptions): void {
  const { loraAlpha, enableLora, prefix } = checkKnownOptions(where, given, [
    "loraAlpha",
    "enableLora",
    "prefix",
  ]);
  if (loraAlpha !== undefined)
    checkNumberThat(where, "loraAlpha", loraAlpha, Number.isFinite, "a finite number");
  if (enableLora !== undefined) checkList(where, "enableLora", enableLora, checkFlag);
  if (prefix !== undefined) checkPrefix(prefix);
}

/**
 * Reads an adapter: a PEFT folder, or a file whose tensor names are kohya's or loralib's.
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_NOT_FINITE`, and the errors of the format's reader.
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

/** Reads only an adapter's header: tensors have shapes but no values, except for alphas. */
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
    const why = readSystemCode(cause) === "ENOENT" ? "there is no such adapter" : (cause as Error).message;
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: ${why}`, { cause });
  }
}

/** Detects the format from a file's tensor names; undefined if unknown. */
export function detectKind(names: readonly string[]): "kohya" | "loralib" | undefined {
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
  const weights = readWeights(path);
  const names = weights.names();
  const kind = detectKind(names);
  if (kind === undefined)
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${path}: its tensors are named neither as kohya's (lora_down, lora_up) nor as loralib's (lora_A, lora_B); of PEFT's adapters name the folder`,
    );
  if (model === undefined) throw createRefusal(FILE_REFUSALS.fileAlone, path, kind);
  const tensors = readAll(path, device);
  for (const key of device === "cpu" ? [] : names.filter((candidate) => candidate.endsWith(".alpha"))) {
    tensors[key]?.dispose();
    tensors[key] = mapTensor(weights, key, "cpu");
  }
  let read: AdapterFile | undefined;
  try {
    read =
      kind === "kohya"
        ? await convertFromKohya(path, tensors, model, reading.prefix)
        : convertFromLoralib(path, tensors, weights.metadata(), model, reading);
    return read;
  } finally {
    const used = new Set(Object.values(read?.tensors ?? {}));
    for (const tensor of Object.values(tensors)) if (!used.has(tensor)) tensor.dispose();
  }
}

/**
 * Converts the adapter at `dir` to another format: `peft` writes a folder, `kohya` and `loralib` a safetensors file,
 * `gguf` a file for llama.cpp's `--lora`. Throws `ERR_OPTION` for anything that the format cannot express.
 */
export async function convertAdapter(dir: string, output: string, given: ConvertOptions): Promise<void> {
  checkPath("convertAdapter", "dir", dir);
  checkPath("convertAdapter", "output", output);
  const {
    format,
    model,
    name = "default",
    ...reading
  } = checkKnownOptions("convertAdapter", given, [
    "format",
    "model",
    "name",
    "loraAlpha",
    "enableLora",
    "prefix",
  ]);
  checkReading("convertAdapter", reading);
  checkAdapterName("convertAdapter", "name", name);
  if (model !== undefined) checkModule("convertAdapter", "model", model);
  if (!FORMATS.includes(format))
    throw new LowrankError(
      "ERR_OPTION",
      `convertAdapter: there is no format "${String(format)}"; there are ${FORMATS.join(", ")}`,
    );
  const read = await readAdapter(dir, name, model, reading);
  try {
    if (format === "peft") {
      // Without a model, only options that every file contains need no completion.
      const complete = completeOptions(model ?? new Sequential(), { targetModules: [], ...read.options });
      const { source, revision } = model ?? {};
      const base =
        read.baseModel === undefined
          ? { baseModel: resolveBaseName(source, revision), revision }
          : { baseModel: relocateBase(read), revision: read.revision };
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
    const layers = sortTensors(read);
    refuseAttention(layers, read.file, format);
    const created: Tensor[] = [];
    try {
      const { tensors, metadata } =
        format === "kohya"
          ? convertToKohya(layers, read.file, reading.prefix ?? resolvePrefix(read), created)
          : await convertToLoralib(layers, read.file, model, created);
      await makeFolder(dirname(output));
      await save(output, tensors, { metadata });
    } finally {
      for (const tensor of created) tensor.dispose();
    }
  } finally {
    disposeFile(read);
  }
}

/** Returns the base model's path for an adapter written to another folder, where a relative path would not resolve. */
function relocateBase({ file, baseModel, revision }: AdapterFile): string | undefined {
  if (baseModel === undefined || revision !== undefined) return baseModel;
  return findBaseModel(dirname(file), baseModel).path ?? baseModel;
}

/** Returns kohya's prefix: the text encoder's for language tasks, the image model's otherwise. */
function resolvePrefix({ options: { taskType } }: AdapterFile): KohyaPrefix {
  const text = ["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"];
  return taskType !== undefined && text.includes(taskType) ? "lora_te" : "lora_unet";
}
