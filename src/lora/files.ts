/** PEFT's adapter folder: `adapter_config.json` and `adapter_model.safetensors`. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { LowrankError } from "../errors.js";
import { makeFolder } from "../folders.js";
import { load as loadSafetensors, save as saveSafetensors, writeWhole } from "../safetensors.js";
import { Embedding } from "../nn/embedding.js";
import type { Module } from "../nn/module.js";
import { noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { readConfig, writeConfig } from "./config.js";
import { deleteAdapter, setTrainable } from "./active.js";
import { injectNow, type InjectReport } from "./inject.js";
import { adapterOf, loraLayers } from "./registry.js";
import type { Targetable } from "./targets.js";

const PREFIX = "base_model.model.";
const WEIGHTS = "adapter_model.safetensors";
const CONFIG = "adapter_config.json";

/** Modules whose base weight PEFT writes beside an adapter of theirs, when a target is their name or a pattern. */
const SAVED_WITH_BASE = ["embed_tokens", "lm_head"];
const BASE = ".base_layer.weight";

/** The tensors of an adapter under PEFT's keys. */
export function adapterState(model: Module, name: string): Map<string, Tensor> {
  const state = new Map<string, Tensor>();
  const { modules, biases, paths, targets } = adapterOf(model, name);
  const withBase = typeof targets === "string" || SAVED_WITH_BASE.some((module) => targets.includes(module));
  for (const [path, layer] of loraLayers(model)) {
    const adapter = layer.adapters.get(name);
    if (adapter === undefined) continue;
    const embedding = layer instanceof Embedding;
    state.set(`${PREFIX}${path}.${embedding ? "lora_embedding_A" : "lora_A.weight"}`, adapter.loraA);
    state.set(`${PREFIX}${path}.${embedding ? "lora_embedding_B" : "lora_B.weight"}`, adapter.loraB);
    if (withBase && SAVED_WITH_BASE.includes(path.split(".").pop() as string))
      state.set(`${PREFIX}${path}${BASE}`, layer.baseWeight);
  }
  for (const [path, { copy }] of modules) {
    for (const [key, tensor] of Object.entries((copy as Module).stateDict()))
      state.set(`${PREFIX}${path}.${key}`, tensor);
  }
  for (const [path, { copy }] of biases) {
    state.set(`${PREFIX}${path}.${paths.includes(path) ? "base_layer.bias" : "bias"}`, copy as Tensor);
  }
  return state;
}

/** What a model says of itself, for the configuration. */
interface Described extends Targetable {
  source?: string;
}

/** The folder of an adapter: `dir` for "default", a folder of its name below it for others. */
function folderOf(dir: string, name: string): string {
  return name === "default" ? dir : join(dir, name);
}

/**
 * Writes an adapter as PEFT does, each file whole or not at all. The same adapter gives the same
 * bytes. Throws `ERR_UNKNOWN_ADAPTER`, `ERR_WRITE`.
 */
export async function saveAdapter(model: Described, dir: string, { name = "default" } = {}): Promise<void> {
  const state = adapterState(model, name);
  const { options, targets } = adapterOf(model, name);
  const folder = folderOf(dir, name);
  try {
    await makeFolder(folder);
  } catch (cause) {
    throw new LowrankError("ERR_WRITE", `${folder}: cannot be made: ${(cause as Error).message}`, { cause });
  }
  await saveSafetensors(join(folder, WEIGHTS), Object.fromEntries(state), { metadata: { format: "pt" } });
  const config = writeConfig(options, targets, { baseModel: model.source });
  await writeWhole(join(folder, CONFIG), config);
}

/**
 * Reads an adapter that PEFT or `saveAdapter` wrote. A key that matches nothing or is missing is
 * `ERR_UNMATCHED_KEY`, a wrong shape `ERR_SHAPE_MISMATCH`; the model is then as it was.
 */
export async function loadAdapter(
  model: Described,
  dir: string,
  { name = "default", trainable = false } = {},
): Promise<InjectReport> {
  const options = readConfig(await readText(join(dir, CONFIG)), join(dir, CONFIG));
  const file = join(dir, WEIGHTS);
  const tensors = await loadSafetensors(file, { device: "cpu" });
  try {
    const trained = [...model.parameters()].filter((tensor) => tensor.requiresGrad);
    const report = injectNow(model, { ...options, name });
    try {
      await fill(model, name, tensors, file);
    } catch (error) {
      deleteAdapter(model, name);
      for (const tensor of trained) tensor.requiresGrad = true;
      throw error;
    }
    if (!trainable) setTrainable(model, name, false);
    return report;
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  }
}

/** Copies `tensors` into the adapter, once every key and shape is seen to fit. */
async function fill(
  model: Module,
  name: string,
  tensors: Record<string, Tensor>,
  file: string,
): Promise<void> {
  const state = adapterState(model, name);
  // PEFT writes these two beside each other for bias "all" with modules_to_save; the second is the
  // module's own, under its plain key as well.
  const doubled = (key: string): boolean => /\.(original_module|modules_to_save)\.bias$/.test(key);
  const unexpected = Object.keys(tensors).filter((key) => !state.has(key) && !doubled(key));
  const missing = [...state.keys()].filter((key) => !(key in tensors) && !key.endsWith(BASE));
  if (unexpected.length + missing.length > 0) {
    const some = (keys: string[]): string =>
      keys.slice(0, 5).join(", ") + (keys.length > 5 ? ` and ${keys.length - 5} more` : "");
    const parts = [
      unexpected.length > 0 ? `not of this model: ${some(unexpected)}` : "",
      missing.length > 0 ? `missing: ${some(missing)}` : "",
    ];
    throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: ${parts.filter(Boolean).join("; ")}`);
  }
  const pairs = [...state].flatMap(([key, own]) =>
    key in tensors ? [[key, own, tensors[key] as Tensor] as const] : [],
  );
  for (const [key, own, given] of pairs) {
    if (given.shape.join() !== own.shape.join()) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${file}: ${key} is [${given.shape.join(", ")}], this model takes [${own.shape.join(", ")}]`,
      );
    }
    if (given.dtype === "i32")
      throw new LowrankError("ERR_DTYPE", `${file}: ${key} holds i32; an adapter holds floats`);
  }
  for (const [key, own, given] of pairs) if (key.endsWith(BASE)) await checkBase(key, own, given, file);
  noGrad(() =>
    scope(() => {
      for (const [key, own, given] of pairs)
        if (!key.endsWith(BASE)) own.copy(given.to("f32").to(own.device));
    }),
  );
}

/** A base weight in an adapter's file is the model's own, but for storage, or the adapter is another model's. */
async function checkBase(key: string, own: Tensor, given: Tensor, file: string): Promise<void> {
  const rounded = (weight: Tensor): Tensor => weight.to(own.dtype).to(given.dtype).to("f32");
  const largest = noGrad(() => scope(() => rounded(given.to(own.device)).sub(rounded(own)).abs().max()));
  const difference = await largest.item();
  largest.dispose();
  if (difference !== 0) {
    throw new LowrankError(
      "ERR_UNMATCHED_KEY",
      `${file}: ${key} differs from the model's own by up to ${difference}: the adapter is for a model with another embedding`,
    );
  }
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new LowrankError(
      "ERR_FILE_NOT_FOUND",
      `${file}: ${(cause as NodeJS.ErrnoException).code === "ENOENT" ? "there is no such file" : (cause as Error).message}`,
      { cause },
    );
  }
}
