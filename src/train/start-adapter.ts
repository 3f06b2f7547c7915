/** Starts a run from an existing adapter. */
import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join, resolve } from "node:path";

import { formatValue } from "../arguments/check.js";
import type { LabelData } from "../data/read.js";
import { LowrankError } from "../errors.js";
import { readConfig } from "../lora/formats/config.js";
import { CONFIG, resolveFolder, LABELS, startIn, WEIGHTS } from "../lora/formats/folder.js";
import type { InitLoraWeights, InjectOptions, Pattern } from "../lora/index.js";
import { divideByRoot } from "../lora/init/restore.js";
import { findBaseOfAdapter } from "../models/adapter-base.js";
import { optionName } from "../arguments/option-name.js";
import { createRefusal } from "../refusals/refusal.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import { readLabels } from "./label-names.js";
import type { Objective } from "./objective.js";
import type { FinetuneOptions } from "./options.js";
import { digestFile } from "./output/manifest.js";
import type { Settings } from "./settings.js";

/** PEFT's defaults for options that an adapter's configuration omits. */
const DEFAULTS: InjectOptions = {
  r: 8,
  loraAlpha: 8,
  loraDropout: 0,
  bias: "none",
  modulesToSave: [],
  useRslora: false,
  useDora: false,
  loraBias: false,
};

/** Options of `lora` that do not describe the adapter itself. */
const FREE = new Set<string>(["name", "active", "taskType"] satisfies (keyof InjectOptions)[]);

/**
 * Completes the options of a run that starts from an adapter: `lora` comes from the adapter's configuration, and the model
 * is the adapter's base model by default. Options without an adapter are returned unchanged.
 *
 * Errors: `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`; `ERR_OPTION` for an option of `lora` that contradicts the adapter, and
 * for an adapter without a known base model.
 */
export function completeFromAdapter<Options extends FinetuneOptions>(options: Options): Options {
  const { adapter, lora = {} } = options;
  if (adapter === undefined) return options;
  const folder = findAdapter(adapter, lora.name);
  const stored = readOptions(folder);
  checkAgainst(lora, stored, folder);
  const base = options.model === undefined ? findBaseModelOf(folder, options.revision) : {};
  return { ...options, ...base, adapter: folder, lora: { ...stored, name: lora.name } };
}

/** Reads the options of the adapter in a folder. */
function readOptions(folder: string): InjectOptions {
  const file = join(folder, CONFIG);
  const { evaConfig: _, ...written } = readConfig(readFileSync(file, "utf8"), file);
  const completed = { ...DEFAULTS, ...written, initLoraWeights: true };
  const start = startIn(folder) as InitLoraWeights | undefined;
  if (start === undefined) return completed;
  // The file stores the initial factors next to the trained ones, so that its ranks are twice the adapter's.
  const alpha = (value: number): number => (completed.useRslora === true ? divideByRoot(value) : value / 2);
  return {
    ...completed,
    initLoraWeights: start,
    r: (completed.r as number) / 2,
    loraAlpha: alpha(completed.loraAlpha as number),
    ...(completed.rankPattern && { rankPattern: mapPattern(completed.rankPattern, (rank) => rank / 2) }),
    ...(completed.alphaPattern && { alphaPattern: mapPattern(completed.alphaPattern, alpha) }),
  };
}

function mapPattern(pattern: Pattern, change: (value: number) => number): Pattern {
  return Object.fromEntries(Object.entries(pattern).map(([key, value]) => [key, change(value)]));
}

/** Returns the absolute path of the adapter's folder. */
function findAdapter(adapter: string, name: string | undefined): string {
  const given = `finetune: ${optionName("adapter")}`;
  if (!existsSync(adapter))
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${given}: ${adapter}: there is no such folder`);
  if (!statSync(adapter).isDirectory())
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${given}: ${adapter} is a file; give the folder of an adapter, which holds ${CONFIG} and ${WEIGHTS}`,
    );
  const folders = [resolve(adapter), resolve(resolveFolder(adapter, name ?? "default"))];
  const folder = folders.find((candidate) => existsSync(join(candidate, CONFIG)));
  if (folder === undefined)
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${given}: ${adapter} holds no adapter: no ${CONFIG}`);
  if (!existsSync(join(folder, WEIGHTS)))
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${given}: ${join(folder, WEIGHTS)}: there is no such file`);
  return folder;
}

function checkAgainst(given: InjectOptions, stored: InjectOptions, folder: string): void {
  const contradicting = Object.entries(given).flatMap(([name, value]) => {
    const has = stored[name as keyof InjectOptions];
    if (value === undefined || FREE.has(name) || isSame(value, has)) return [];
    return [
      `${optionName(`lora.${name}`)} is ${formatGiven(value)}, and the adapter has ${formatGiven(has)}`,
    ];
  });
  if (contradicting.length > 0)
    throw createRefusal(TRAINING_REFUSALS.loraOfAdapter, `finetune: ${folder}`, contradicting.join("; "));
}

function formatGiven(value: unknown): string {
  return value === undefined ? "none" : typeof value === "string" ? value : formatValue(value);
}

/** Whether two values are equal; lists are compared as sets, as in PEFT. */
function isSame(a: unknown, b: unknown): boolean {
  const plain = (value: unknown): string =>
    JSON.stringify(Array.isArray(value) ? [...(value as unknown[])].map(String).sort() : (value ?? null));
  return plain(a) === plain(b);
}

function findBaseModelOf(
  folder: string,
  requested: string | undefined,
): { model: string; revision?: string | undefined } {
  const { name, model, revision: stored, places } = findBaseOfAdapter(folder);
  const revision = requested ?? stored;
  const give = `give ${optionName("model")}`;
  if (name === undefined)
    throw new LowrankError("ERR_OPTION", `finetune: ${folder} does not name its base model: ${give}`);
  if (model === undefined) {
    const where = places.length > 1 ? `, neither at ${places.join(" nor at ")}` : "";
    throw new LowrankError(
      "ERR_FILE_NOT_FOUND",
      `finetune: ${folder} was made for ${name}, which is not here${where}: ${give}`,
    );
  }
  return { model, ...(revision !== undefined && { revision }) };
}

/**
 * Throws `ERR_OUTPUT_EXISTS` if the run would replace its start adapter. With `overwrite` it may replace the adapter in
 * its output folder.
 */
export function checkOutput({ adapter, output, overwrite, lora }: Settings): void {
  if (adapter === undefined || overwrite) return;
  const places = [output, resolveFolder(output, lora.name ?? "default")].filter((path) => existsSync(path));
  if (!places.some((path) => realpathSync(path) === realpathSync(adapter))) return;
  throw new LowrankError(
    "ERR_OUTPUT_EXISTS",
    `${output}: is the folder of the adapter that the run starts from; choose another ${optionName("output")}, or replace the adapter at the end of the run with ${optionName("overwrite")}`,
  );
}

/** Returns the hash of an adapter's weights. */
export async function identifyAdapter(folder: string): Promise<string> {
  return (await digestFile(join(folder, WEIGHTS))).sha256;
}

/** Returns the classes of the adapter in `folder`, in its order; undefined if the folder names none. */
export function readClasses(folder: string): string[] | undefined {
  return existsSync(join(folder, LABELS)) ? readLabels(folder) : undefined;
}

/** Throws `ERR_DATA_ROW` for labels that are not in `known`, the classes of the adapter. */
export function checkClasses(
  { file, labels }: Pick<LabelData, "file" | "labels">,
  known: readonly string[],
): void {
  const unknown = [...labels.keys()].map(String).filter((label) => !known.includes(label));
  if (unknown.length === 0) return;
  const what = `the adapter that the run starts from does not know the classes ${unknown.slice(0, 5).join(", ")}`;
  throw new LowrankError("ERR_DATA_ROW", `${file}: ${what}; it has ${known.join(", ")}`);
}

/** Throws `ERR_OPTION` if the adapter lacks the head that an objective trains. */
export function checkHead({ adapter, lora }: Settings, { modulesToSave: heads }: Objective): void {
  if (adapter === undefined || heads.length === 0) return;
  if ((lora.modulesToSave ?? []).some((name) => heads.includes(name))) return;
  throw createRefusal(TRAINING_REFUSALS.adapterWithoutHead, `finetune: ${adapter}`);
}
