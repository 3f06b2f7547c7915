/**
 * Folders of sentence-transformers: the modules after the transformer, which pool its hidden states into one vector.
 * Source: sentence-transformers' base/model.py and sentence_transformer/modules/pooling.py.
 */
import { existsSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { isAbsolute, join } from "node:path";

import { LowrankError } from "../errors.js";
import { MODEL_REFUSALS } from "../refusals/models.js";
import { createRefusal } from "../refusals/refusal.js";
import { type ConfigFields, readConfigFields, readText } from "./config-fields.js";

/** How the hidden states of a text are pooled into one vector. */
export const POOLINGS = ["mean", "cls", "max", "mean_sqrt_len", "weightedmean", "lasttoken"] as const;
export type Pooling = (typeof POOLINGS)[number];

/** The embedding settings of a folder. */
export interface SentenceSettings {
  /** The poolings, whose vectors are concatenated. */
  pooling: readonly Pooling[];
  normalize: boolean;
  /** The maximum number of tokens of a text; undefined for no limit. */
  maxLength: number | undefined;
  /** Whether texts are lowercased before tokenisation. */
  lowercase: boolean;
  /** Prepended to each text. */
  prompt: string;
  /** Whether the prompt's tokens are pooled too. */
  includePrompt: boolean;
}

const MODULES = "modules.json";
/** Files at the top of the model's folder. */
const FILES = [MODULES, "sentence_bert_config.json", "config_sentence_transformers.json"];

/** Keys of older configurations, in the order of concatenation. */
const OLDER: readonly [key: string, pooling: Pooling][] = [
  ["pooling_mode_cls_token", "cls"],
  ["pooling_mode_max_tokens", "max"],
  ["pooling_mode_mean_tokens", "mean"],
  ["pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len"],
  ["pooling_mode_weightedmean_tokens", "weightedmean"],
  ["pooling_mode_lasttoken", "lasttoken"],
];

interface ModuleEntry {
  /** The last component of its class name: `Pooling`. */
  kind: string;
  /** Its folder, relative to the model's; empty for the model's folder itself. */
  path: string;
}

/** Reads the modules of a folder; undefined where it has no `modules.json`. Throws `ERR_FILE_FORMAT`. */
function readModules(folder: string): ModuleEntry[] | undefined {
  const file = join(folder, MODULES);
  const text = readText(file);
  if (text === undefined) return undefined;
  const wrong = (what: string, cause?: unknown): LowrankError =>
    new LowrankError("ERR_FILE_FORMAT", `${file}: ${what}`, { cause });
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    throw wrong(`not JSON: ${(cause as Error).message}`, cause);
  }
  if (!Array.isArray(list)) throw wrong("must be a list of modules");
  return list.map((entry: unknown, i): ModuleEntry => {
    const { type, path } = (typeof entry === "object" && entry !== null ? entry : {}) as Record<
      string,
      unknown
    >;
    if (typeof type !== "string" || typeof path !== "string")
      throw wrong(`module ${i} must have a type and a path`);
    if (isAbsolute(path) || path.split(/[\\/]/).includes(".."))
      throw wrong(`the path of module ${i}, ${JSON.stringify(path)}, leads out of the model's folder`);
    return { kind: type.split(".").at(-1) as string, path };
  });
}

/**
 * Reads the settings by which sentence-transformers embeds texts; undefined where `folder` has none.
 *
 * Throws `ERR_FILE_FORMAT`, `ERR_FILE_NOT_FOUND`, and `ERR_UNSUPPORTED_MODEL` for an unsupported module or pooling.
 */
export function readSentenceSettings(folder: string): SentenceSettings | undefined {
  const modules = readModules(folder);
  if (modules === undefined) return undefined;
  const [first, ...rest] = modules;
  if (first?.kind !== "Transformer" || !["", "."].includes(first.path))
    throw createUnsupported(folder, first);
  const [pooling, ...after] = rest;
  const other = pooling?.kind === "Pooling" ? after.find(({ kind }) => kind !== "Normalize") : pooling;
  if (other !== undefined || pooling === undefined) throw createUnsupported(folder, other);
  const file = join(folder, pooling.path, "config.json");
  const config = readConfigFields(file);
  if (config === undefined) throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: no such file`);
  const transformer = readConfigFields(join(folder, first.path, "sentence_bert_config.json"));
  const settings = readConfigFields(join(folder, "config_sentence_transformers.json"));
  return {
    pooling: readPooling(config),
    normalize: rest.some(({ kind }) => kind === "Normalize"),
    maxLength: readLength(transformer),
    lowercase: transformer?.readValue("do_lower_case") === true,
    prompt: readPrompt(settings),
    includePrompt: config.readValue("include_prompt") !== false,
  };
}

function createUnsupported(folder: string, module: ModuleEntry | undefined): LowrankError {
  const subject = module === undefined ? "no module Pooling" : `the module ${module.kind}`;
  return createRefusal(
    MODEL_REFUSALS.sentenceModules,
    join(folder, MODULES),
    subject,
    "ERR_UNSUPPORTED_MODEL",
  );
}

function readPooling(config: ConfigFields): Pooling[] {
  const mode = config.readValue("pooling_mode");
  if (mode === undefined) {
    const modes = OLDER.filter(([key]) => config.readValue(key) === true).map(([, pooling]) => pooling);
    return modes.length === 0 ? ["mean"] : modes;
  }
  const modes = Array.isArray(mode) ? mode : [mode];
  return modes.map((item: unknown) => {
    const name = item === "mean_sqrt_len_tokens" ? "mean_sqrt_len" : item;
    const known = POOLINGS.find((pooling) => pooling === name);
    if (known !== undefined) return known;
    throw createRefusal(
      MODEL_REFUSALS.sentencePooling,
      config.file,
      `pooling_mode ${JSON.stringify(item)}`,
      "ERR_UNSUPPORTED_MODEL",
    );
  });
}

function readLength(config: ConfigFields | undefined): number | undefined {
  const length = config?.readValue("max_seq_length") ?? undefined;
  if (config === undefined || length === undefined) return undefined;
  if (typeof length === "number" && Number.isInteger(length) && length > 0) return length;
  throw config.createError("max_seq_length", "must be a whole number of at least 1");
}

/** Returns the text of the default prompt; empty where none is named. */
function readPrompt(config: ConfigFields | undefined): string {
  const name = config?.readValue("default_prompt_name");
  if (config === undefined || typeof name !== "string") return "";
  const prompt = config.readObject("prompts")?.readValue(name);
  if (typeof prompt === "string") return prompt;
  throw config.createError("default_prompt_name", "must be a name in prompts");
}

/** Copies the files and module folders of sentence-transformers, where there are any, into another folder. */
export async function copySentenceFiles(from: string, to: string): Promise<void> {
  const modules = readModules(from);
  if (modules === undefined) return;
  for (const name of FILES) if (existsSync(join(from, name))) await cp(join(from, name), join(to, name));
  for (const { path } of modules) {
    if (path === "" || path === ".") continue;
    if (existsSync(join(from, path))) await cp(join(from, path), join(to, path), { recursive: true });
    // Hubs drop empty folders, but sentence-transformers writes one for Normalize.
    else await mkdir(join(to, path), { recursive: true });
  }
}
