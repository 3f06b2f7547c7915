/** PEFT's adapter folder on disk: `adapter_config.json` and `adapter_model.safetensors`. */
import { readdir, readFile, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import type { Device } from "../../device/device.js";
import { LowrankError } from "../../errors.js";
import { makeFolder } from "../../files/folders.js";
import { openWeights, readAll, save, writeWhole } from "../../files/safetensors.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { ChatTemplates } from "../adapter/chat-templates.js";
import { readConfig } from "./config.js";
import { listSome, type AdapterFile } from "./adapter-file.js";

/** The two files of an adapter folder. */
export const WEIGHTS = "adapter_model.safetensors";
export const CONFIG = "adapter_config.json";
/** The class names of a classifier. PEFT ignores this file. */
export const LABELS = "labels.json";
/** The chat template that an adapter was trained with, and the template for conversations with tools. Both names are transformers'. */
export const TEMPLATE = "chat_template.jinja";
export const TOOLS_TEMPLATE = "additional_chat_templates/tool_use.jinja";
/** The metadata key of the initialisation, for a file that includes the start. PEFT ignores it. */
const START = "lowrank_start";

/** Returns the folder of an adapter: `dir` for "default", a subfolder of its name for others. */
export function resolveFolder(dir: string, name: string): string {
  return name === "default" ? dir : join(dir, name);
}

/**
 * Reads the adapter in `dir`, or if there is none, the one in its subfolder `name`, with its tensors on `device`.
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`.
 */
export async function readFolder(
  dir: string,
  name = "default",
  device: Device = "cpu",
): Promise<AdapterFile> {
  const below = resolveFolder(dir, name);
  const folder = (await listEntries(dir)).includes(CONFIG) || below === dir ? dir : below;
  const entries = await listEntries(folder);
  const config = join(folder, CONFIG);
  if (!entries.includes(CONFIG)) await explainMissing(folder, entries);
  const text = await readFile(config, "utf8");
  const options = readConfig(text, config);
  const file = join(folder, WEIGHTS);
  if (!entries.includes(WEIGHTS)) refuseOther(folder, entries);
  const start = startIn(folder);
  const { base_model_name_or_path: baseModel, revision } = JSON.parse(text) as Record<string, unknown>;
  return {
    file,
    folder,
    options,
    tensors: readAll(file, device),
    ...(typeof baseModel === "string" && baseModel !== "" ? { baseModel } : {}),
    ...(typeof revision === "string" && revision !== "" ? { revision } : {}),
    ...(start === undefined ? {} : { start }),
  };
}

/** Returns the recorded initialisation of the adapter in a folder, if its file includes the start. Throws `ERR_FILE_FORMAT`. */
export function startIn(folder: string): string | undefined {
  return openWeights(join(folder, WEIGHTS)).metadata()[START];
}

/** Writes tensors and configuration, each file atomically. Throws `ERR_WRITE`. */
export async function writeFolder(
  folder: string,
  tensors: Readonly<Record<string, Tensor>>,
  config: string,
  { start }: Pick<AdapterFile, "start"> = {},
): Promise<void> {
  try {
    await makeFolder(folder);
  } catch (cause) {
    throw new LowrankError("ERR_WRITE", `${folder}: cannot be made: ${(cause as Error).message}`, { cause });
  }
  await save(join(folder, WEIGHTS), tensors, {
    metadata: { format: "pt", ...(start === undefined ? {} : { [START]: start }) },
  });
  await writeWhole(join(folder, CONFIG), config);
}

/**
 * Writes the chat templates into an adapter's folder under transformers' file names. Null deletes the templates of an
 * earlier adapter in the folder; undefined changes nothing. Throws `ERR_WRITE`.
 */
export async function writeTemplates(
  folder: string,
  templates: ChatTemplates | null | undefined,
): Promise<void> {
  if (templates === undefined) return;
  const tools = join(folder, TOOLS_TEMPLATE);
  if (templates !== null) await writeWhole(join(folder, TEMPLATE), templates.text);
  else await rm(join(folder, TEMPLATE), { force: true });
  if (templates?.tools !== undefined) {
    await makeFolder(dirname(tools));
    await writeWhole(tools, templates.tools);
  } else await rm(tools, { force: true });
}

/** Copies the chat templates of an adapter's folder into another folder. */
export async function copyTemplates({ folder: from }: AdapterFile, folder: string): Promise<void> {
  for (const name of from === undefined ? [] : [TEMPLATE, TOOLS_TEMPLATE, "tokenizer_config.json"]) {
    const text = await readFile(join(from as string, name), "utf8").catch(() => undefined);
    if (text === undefined) continue;
    await makeFolder(dirname(join(folder, name)));
    await writeWhole(join(folder, name), text);
  }
}

/** Copies the class names stored next to the weights `file`, if any, into another folder. */
export async function copyLabels(file: string, folder: string): Promise<void> {
  const from = dirname(file);
  if (basename(file) !== WEIGHTS || !(await listEntries(from)).includes(LABELS)) return;
  await writeWhole(join(folder, LABELS), await readFile(join(from, LABELS), "utf8"));
}

async function listEntries(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}

/** Throws an error for a folder without an adapter, listing subfolders that contain one. */
async function explainMissing(folder: string, entries: readonly string[]): Promise<never> {
  const inside = await Promise.all(
    entries.map(async (entry) => ((await listEntries(join(folder, entry))).includes(CONFIG) ? [entry] : [])),
  );
  const names = inside.flat();
  throw new LowrankError(
    "ERR_FILE_NOT_FOUND",
    names.length > 0
      ? `${folder}: the adapters are in folders below it: ${listSome(names)}; name one of these`
      : `${join(folder, CONFIG)}: there is no such file`,
  );
}

/** Throws an error for weights in another format than one safetensors file, with the way to convert them. */
function refuseOther(folder: string, entries: readonly string[]): never {
  const pickled = entries.find((entry) => /^adapter_model.*\.(bin|pt|pth)$/.test(entry));
  const shard = entries.find((entry) => /^adapter_model.*(-of-\d+\.safetensors|\.index\.json)$/.test(entry));
  if (shard !== undefined) {
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${join(folder, shard)}: the adapter is cut into shards, which are not read; save it as one ${WEIGHTS}, in PEFT with a larger max_shard_size`,
    );
  }
  if (pickled !== undefined) {
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${join(folder, pickled)}: pickled weights can run any code when read, so they are not; save them as ${WEIGHTS}, in PEFT with save_pretrained(dir, safe_serialization=True)`,
    );
  }
  throw new LowrankError("ERR_FILE_NOT_FOUND", `${join(folder, WEIGHTS)}: there is no such file`);
}
