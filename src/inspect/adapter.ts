/** Describes an adapter's folder or file by its configuration and header, and checks whether it fits a model. */
import { existsSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { LowrankError } from "../errors.js";
import { parseHubName } from "../hub/name.js";
import { findBaseModel } from "../lora/formats/base-model.js";
import { disposeFile, type AdapterFile } from "../lora/formats/adapter-file.js";
import { detectKind, readAdapterHeader } from "../lora/formats/convert.js";
import { compareAdapter, type AdapterFit } from "../lora/formats/files.js";
import { sortTensors } from "../lora/formats/layers.js";
import type { InjectOptions } from "../lora/index.js";
import { compilePatterns } from "../lora/options/patterns.js";
import type { Targetable } from "../lora/options/targets.js";
import type { LoadOptions } from "../models/files/load.js";
import type { Located } from "../models/files/locate.js";
import { mapTensor, openWeights } from "../files/safetensors.js";
import { type Contents, readContents } from "./contents.js";
import { loadHeaderModel } from "./model.js";

/** Layers with the same rank and alpha. */
export interface InspectedRank {
  /** The rank. */
  rank: number;
  /** The alpha; undefined if the file does not state it. */
  alpha?: number | undefined;
  /** The number of layers. */
  layers: number;
}

/** The comparison of an adapter with the given model. */
export interface InspectedFit extends AdapterFit {
  /** The model's name. */
  model: string;
}

/** The description of an adapter. Fields that its files do not state are undefined. */
export interface InspectedAdapter extends Contents {
  /** Identifies the result. */
  kind: "adapter";
  /** The folder or the file. */
  path: string;
  /** The format: a PEFT folder, or a file in the format of kohya or loralib. */
  format: "peft" | "kohya" | "loralib";
  /** The name of its base model. */
  baseModel?: string | undefined;
  /** The path of its base model on this machine; undefined for a hub's model, and if it was not found. */
  basePath?: string | undefined;
  /** The paths that were searched for its base model without success; undefined otherwise, and for a hub's model. */
  baseSought?: string[] | undefined;
  /** The commit of its base model at a hub. */
  revision?: string | undefined;
  /** The number of adapted layers. */
  layers: number;
  /** The ranks and alphas of the layers, the most common first. */
  ranks: InspectedRank[];
  /** The last parts of the layers' paths, without duplicates; empty for a kohya file, which lacks full paths. */
  targets: string[];
  /** An initialisation that was subtracted from the weight, such as `pissa`; A and B contain it next to the trained factors. */
  start?: string | undefined;
  /** The networks of a kohya file: `lora_unet`, `lora_te`, … */
  networks?: string[] | undefined;
  /** The contents of `adapter_config.json`, with the option names of `inject`. */
  options?: InjectOptions | undefined;
  /** Problems that prevent loading it, whatever the model. */
  problems: string[];
  /** The comparison with the model, if one was given. */
  fit?: InspectedFit | undefined;
}

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";

/** Whether a path is an adapter: a PEFT folder, or a file with the tensor names of kohya or loralib. */
export function isAdapter(path: string): boolean {
  if (statSync(path).isDirectory()) return existsSync(join(path, CONFIG));
  return path.endsWith(".safetensors") && detectKind(openWeights(path).names()) !== undefined;
}

/** Throws `ERR_FILE_NOT_FOUND` or `ERR_FILE_FORMAT` for unreadable files; the result lists all other problems. */
export async function inspectAdapter(path: string, model: Located | undefined): Promise<InspectedAdapter> {
  const found = statSync(path).isDirectory() ? await inspectFolder(path) : await inspectFile(path);
  if (model === undefined) return found;
  const fit = await compareWithModel(path, model, found);
  return { ...found, fit };
}

async function inspectFolder(path: string): Promise<InspectedAdapter> {
  const file = join(path, CONFIG);
  let config: Record<string, unknown>;
  try {
    config = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: not JSON: ${(cause as Error).message}`, { cause });
  }
  const readText = (key: string): string | undefined => {
    const value = config[key];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const nothing = { parameters: 0, bytes: 0, dtypes: {} };
  const weights = join(path, WEIGHTS);
  const base: InspectedAdapter = {
    kind: "adapter",
    path,
    format: "peft",
    baseModel: readText("base_model_name_or_path"),
    ...findBase(path, readText("base_model_name_or_path"), readText("revision")),
    revision: readText("revision"),
    layers: 0,
    ranks: [],
    targets: [],
    ...(existsSync(weights) ? readContents(weights) : nothing),
    problems: [],
  };
  let read: AdapterFile | undefined;
  try {
    read = await readAdapterHeader(path, "default", undefined);
    const { layers } = sortTensors(read);
    const { r = 8, loraAlpha = 8, rankPattern = {}, alphaPattern = {} } = read.options;
    const rankOf = compilePatterns(rankPattern, "rankPattern");
    const alphaOf = compilePatterns(alphaPattern, "alphaPattern");
    const paths = [...layers.keys()];
    return {
      ...base,
      layers: paths.length,
      ranks: countRanks(
        paths.map((layerPath) => ({ rank: rankOf(layerPath) ?? r, alpha: alphaOf(layerPath) ?? loraAlpha })),
      ),
      targets: listEndings(paths),
      ...(read.start !== undefined && { start: read.start }),
      options: read.options,
    };
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    return { ...base, problems: [error.message] };
  } finally {
    if (read !== undefined) disposeFile(read);
  }
}

/** Finds the base model of the adapter in `folder`. */
function findBase(
  folder: string,
  name: string | undefined,
  revision: string | undefined,
): Pick<InspectedAdapter, "basePath" | "baseSought"> {
  if (name === undefined || revision !== undefined) return {};
  const { path, places } = findBaseModel(folder, name);
  if (path !== undefined) return { basePath: path };
  return parseHubName(name) === undefined ? { baseSought: places } : {};
}

/** Tensor names of kohya and of loralib. */
const KOHYA = /^(lora_(?:unet|te\d?))_(.*?)\.lora_down\.weight$/;
const LORALIB = /^(.*)\.lora_A$/;

async function inspectFile(path: string): Promise<InspectedAdapter> {
  const file = openWeights(path);
  const names = file.names();
  const format = detectKind(names) as "kohya" | "loralib";
  const down = format === "kohya" ? KOHYA : LORALIB;
  const carriers = names.filter((name) => down.test(name));
  const alphas = format === "kohya" ? await readKohyaAlphas(path, names) : readLoralibAlphas(file.metadata());
  const layers = carriers.map((name) => {
    const layer =
      format === "kohya" ? name.slice(0, -".lora_down.weight".length) : name.slice(0, -".lora_A".length);
    return { layer, rank: file.info(name).shape[0] as number, alpha: alphas(layer) };
  });
  const networks = new Set(carriers.flatMap((name) => KOHYA.exec(name)?.[1] ?? []));
  const problems =
    carriers.length > 0 ? [] : [`${path}: no layer has ${format === "kohya" ? "a lora_down" : "its lora_A"}`];
  return {
    kind: "adapter",
    path,
    format,
    layers: layers.length,
    ranks: countRanks(layers),
    targets: format === "kohya" ? [] : listEndings(layers.map(({ layer }) => layer)),
    ...(networks.size > 0 && { networks: [...networks] }),
    ...readContents(path),
    problems,
  };
}

/** Returns the alpha of each layer, which is a scalar tensor next to it. */
async function readKohyaAlphas(
  path: string,
  names: readonly string[],
): Promise<(layer: string) => number | undefined> {
  const file = openWeights(path);
  const alphas = new Map<string, number>();
  for (const name of names.filter((candidate) => candidate.endsWith(".alpha"))) {
    if (file.info(name).shape.reduce((a, b) => a * b, 1) !== 1) continue;
    const scalar = mapTensor(file, name, "cpu");
    const wide = scalar.to("f32");
    alphas.set(name.slice(0, -".alpha".length), await wide.item());
    for (const tensor of new Set([scalar, wide])) tensor.dispose();
  }
  return (layer) => alphas.get(layer);
}

/** Parses the alpha in a loralib header: a number for all layers, or JSON by layer. */
function readLoralibAlphas({
  lora_alpha: text,
}: Record<string, string>): (layer: string) => number | undefined {
  if (text === undefined) return () => undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "number") return () => value;
    const byLayer = value as Record<string, number>;
    return (layer) => (typeof byLayer?.[layer] === "number" ? byLayer[layer] : undefined);
  } catch {
    return () => undefined;
  }
}

function countRanks(layers: readonly { rank: number; alpha: number | undefined }[]): InspectedRank[] {
  const groups = new Map<string, InspectedRank>();
  for (const { rank, alpha } of layers) {
    const key = `${rank} ${alpha}`;
    const group = groups.get(key) ?? { rank, ...(alpha !== undefined && { alpha }), layers: 0 };
    groups.set(key, { ...group, layers: group.layers + 1 });
  }
  return [...groups.values()].sort((a, b) => b.layers - a.layers);
}

function listEndings(paths: readonly string[]): string[] {
  return [...new Set(paths.map((path) => path.split(".").at(-1) as string))];
}

/** Returns the options for loading a classifier with the number of classes in the adapter's head. */
function chooseTask(path: string, { options }: InspectedAdapter): Pick<LoadOptions, "task" | "numLabels"> {
  if (options?.taskType !== "SEQ_CLS") return {};
  const file = openWeights(join(path, WEIGHTS));
  const head = file.names().find((name) => /\.(classifier|classifier\.out_proj|score)\.weight$/.test(name));
  const classes = head === undefined ? undefined : file.info(head).shape[0];
  return { task: "sequence-classification", ...(classes !== undefined && { numLabels: classes }) };
}

/** Compares an adapter with a model by their headers, without reading values. */
async function compareWithModel(
  path: string,
  located: Located,
  found: InspectedAdapter,
): Promise<InspectedFit> {
  const problems = new Set(found.problems);
  let fit: AdapterFit | undefined;
  const mismatches: string[] = [];
  const model = await loadHeaderModel(located, mismatches, [], chooseTask(path, found));
  let read: AdapterFile | undefined;
  try {
    if (model !== undefined) {
      read = await readAdapterHeader(path, "default", model as Targetable);
      fit = compareAdapter(model, read);
    }
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    mismatches.push(error.message);
  } finally {
    if (read !== undefined) disposeFile(read);
    model?.dispose();
  }
  for (const text of [...mismatches, ...(fit?.problems ?? [])]) problems.add(text);
  const nothing = { matched: 0, unexpected: [], missing: [], misshapen: [] };
  return {
    model: located.source,
    ...(fit ?? nothing),
    fits: fit?.fits === true && problems.size === 0,
    problems: [...problems],
  };
}
