/**
 * Loralib's state dict: `X.lora_A`, `X.lora_B`, and `X.bias` for trained biases. The format has no alpha: files written
 * here store it in the metadata; for other files the caller must give it. Source: microsoft/LoRA, loralib/layers.py.
 */
import { formatValue } from "../../arguments/check.js";
import { tensor, zeros } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { Embedding } from "../../nn/embedding.js";
import type { Module } from "../../nn/module.js";
import { MultiheadAttention } from "../../nn/multihead-attention.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { ConvNd } from "../../nn/conv.js";
import { Linear } from "../../nn/linear.js";
import { matchExactly, describeRanks } from "../options/exact.js";
import { expandAcrossGroups } from "../layers/grouped.js";
import { LoRALayer } from "../layers/layer.js";
import { MergedLinear } from "../layers/merged-linear.js";
import { extractBlocks } from "../layers/own-form.js";
import { listBaseModules } from "../adapter/registry.js";
import { isAdaptable, type Adaptable, type Targetable } from "../options/targets.js";
import { PREFIX, listSome, type AdapterFile } from "./adapter-file.js";
import type { FileLayers } from "./layers.js";
import { FILE_REFUSALS } from "../../refusals/files.js";
import { createRefusal } from "../../refusals/refusal.js";

/** The metadata key of alpha: one number for all layers, or JSON by path. */
const ALPHA = "lora_alpha";

export function isLoralib(names: readonly string[]): boolean {
  return names.some((name) => /(^|\.)lora_[AB]$/.test(name));
}

/**
 * Renames a file's layers to loralib's names. A layer that is a `MergedLinear` in `model` gets loralib's compact form, if
 * its B is block-diagonal. Appends new tensors to `created`; the caller disposes them.
 */
export async function convertToLoralib(
  { layers, biases, others }: FileLayers,
  file: string,
  model: Module | undefined,
  created: Tensor[],
): Promise<{ tensors: Record<string, Tensor>; metadata: Record<string, string> }> {
  if (others.length > 0) throw createRefusal(FILE_REFUSALS.loralibBeyond, file, listSome(others));
  const tensors: Record<string, Tensor> = {};
  const alphas: Record<string, number> = {};
  const modules = new Map(model?.namedModules());
  for (const [path, { a, b, r, scaling }] of layers) {
    const { loraA, loraB } =
      a.shape.length > 2 ? convertConvolution(path, a, b, file) : { loraA: a, loraB: b };
    const module = modules.get(path);
    const blocks = module instanceof MergedLinear ? await extractSlices(module, loraB) : undefined;
    for (const result of [loraA, loraB, blocks])
      if (result !== undefined && result !== a && result !== b) created.push(result);
    tensors[`${path}.lora_A`] = loraA;
    tensors[`${path}.lora_B`] = blocks ?? loraB;
    alphas[path] = scaling * (blocks === undefined ? r : (blocks.shape[1] as number));
  }
  for (const [path, bias] of biases) tensors[`${path}.bias`] = bias;
  const values = new Set(Object.values(alphas));
  return {
    tensors,
    metadata: { format: "pt", [ALPHA]: values.size === 1 ? String([...values][0]) : JSON.stringify(alphas) },
  };
}

/**
 * Converts a convolution's factors to loralib's form of the same rank: A [r·k, in·k], B [out·k, r·k]. Loralib reshapes
 * B·A to the weight [out, in, k, k], so each of the k rows of a kernel uses separate r rows of A.
 */
function convertConvolution(
  path: string,
  a: Tensor,
  b: Tensor,
  file: string,
): { loraA: Tensor; loraB: Tensor } {
  const [r, inputs, k, width, ...rest] = a.shape as [number, number, number, number?];
  if (b.shape[1] !== r) throw createRefusal(FILE_REFUSALS.loralibGroups, file, path);
  if (width === undefined || rest.length > 0) {
    if (a.size !== r * inputs) throw createRefusal(FILE_REFUSALS.loralibDimensions, file, path);
    return noGrad(() => ({ loraA: a.reshape(r, inputs), loraB: b.reshape(-1, r) }));
  }
  if (width !== k) throw createRefusal(FILE_REFUSALS.loralibKernel, file, `${path}, ${k}×${width}`);
  const rows = b.shape[0] as number;
  return noGrad(() => ({
    loraA: scope(() => a.reshape(r * k, inputs * k)),
    loraB: scope(() => spreadSlices(b.reshape(rows, r), k)),
  }));
}

/** Returns B [out, r·E] as loralib's [width·E, r] if it is block-diagonal over the enabled slices; otherwise undefined. */
async function extractSlices(module: MergedLinear, b: Tensor): Promise<Tensor | undefined> {
  const { slices, width, outFeatures } = module;
  const [rows, rank] = b.shape as [number, number];
  if (rows !== outFeatures || slices.length === 0 || rank % slices.length !== 0) return undefined;
  const wide = noGrad(() => b.to("f32"));
  const values = (await wide.data()) as Float32Array;
  if (wide !== b) wide.dispose();
  const out = extractBlocks(module, values, rank);
  if (out === undefined) return undefined;
  return tensor(out, { shape: [width * slices.length, rank / slices.length], device: b.device });
}

/** Pads `inner` with zeros along `dim`, `before` and `after` it. */
function padInto(inner: Tensor, dim: number, before: number, after: number): Tensor {
  const createZeros = (size: number): Tensor[] => {
    const shape = inner.shape.map((length, d) => (d === dim ? size : length));
    return size === 0 ? [] : [zeros(shape, { device: inner.device })];
  };
  return concatenateTensors([...createZeros(before), inner, ...createZeros(after)], dim);
}

function concatenateTensors(tensors: readonly Tensor[], dim: number): Tensor {
  const [first, ...rest] = tensors as [Tensor, ...Tensor[]];
  return rest.length === 0 ? first : first.concat(rest, dim);
}

/** Expands B [out, r] to [out·k, r·k]: B[o, ρ] at (o·k + i, ρ·k + i) for each i, zero elsewhere. */
function spreadSlices(b: Tensor, k: number): Tensor {
  const [rows, r] = b.shape as [number, number];
  const lines = Array.from({ length: k }, (_, i) => {
    return padInto(b.reshape(rows, r, 1), 2, i, k - 1 - i).reshape(rows, 1, r * k);
  });
  return concatenateTensors(lines, 1).reshape(rows * k, r * k);
}

/** Information that a loralib file lacks. */
export interface LoralibOptions {
  /** Alpha, if neither the file nor the model's low-rank layers have it. */
  loraAlpha?: number | undefined;
  /** Which slices of merged linear layers are adapted, if the model's layers are not `MergedLinear`. */
  enableLora?: readonly boolean[] | undefined;
}

/** Suffixes of further keys of a layer, mapped to PEFT's. */
const PARTS = { lora_B_bias: "lora_B.bias", lora_magnitude_vector: "lora_magnitude_vector" } as const;

/**
 * Converts a state dict from loralib or `loraStateDict` with the paths of `model`. A merged linear layer becomes
 * the equivalent plain one of rank r·E, with the slices of the model's layer; a convolution in loralib's form becomes one
 * of rank r·k², the largest rank that its ΔW can have. Takes ownership of the tensors.
 * Throws `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
 */
export function convertFromLoralib(
  file: string,
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
  model: Targetable,
  { loraAlpha, enableLora }: LoralibOptions = {},
): AdapterFile {
  const alphaOf = createAlphaReader(file, metadata, loraAlpha);
  const modules = new Map(
    [...listBaseModules(model)].filter((entry): entry is [string, Adaptable] => isAdaptable(entry[1])),
  );
  const unmatched: string[] = [];
  const out: Record<string, Tensor> = {};
  const ranks = new Map<string, { r: number; loraAlpha: number }>();
  const halves = splitKeys(tensors);
  for (const [path, keys] of halves.layers) {
    const module = modules.get(path);
    const [a, b] = [tensors[`${path}.lora_A`], tensors[`${path}.lora_B`]];
    if (module === undefined || a === undefined || b === undefined) {
      unmatched.push(...keys);
      continue;
    }
    const plain = noGrad(() => scope(() => convertLayer(file, path, module, a, b, enableLora)));
    ranks.set(path, { r: plain.a.shape[0] as number, loraAlpha: alphaOf(path, module) * plain.factor });
    const [keyA, keyB] =
      module instanceof Embedding
        ? ["lora_embedding_A", "lora_embedding_B"]
        : ["lora_A.weight", "lora_B.weight"];
    out[`${PREFIX}${path}.${keyA}`] = plain.a;
    out[`${PREFIX}${path}.${keyB}`] = plain.b;
    for (const [part, suffix] of Object.entries(PARTS)) {
      const tensor = tensors[`${path}.${part}`];
      if (tensor !== undefined) out[`${PREFIX}${path}.${suffix}`] = tensor;
    }
  }
  unmatched.push(...halves.others);
  let bias: "none" | "all" | "lora_only" = "none";
  for (const [path, layerBias] of halves.biases) {
    if (!ranks.has(path)) bias = "all";
    else if (bias === "none") bias = "lora_only";
    out[`${PREFIX}${path}.${ranks.has(path) ? "base_layer.bias" : "bias"}`] = layerBias;
  }
  if (unmatched.length > 0)
    throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: not of this model: ${listSome(unmatched)}`);
  const has = (part: keyof typeof PARTS): boolean => {
    const lacking = [...ranks.keys()].filter((path) => !(`${path}.${part}` in tensors));
    if (lacking.length > 0 && lacking.length < ranks.size)
      throw new LowrankError(
        "ERR_UNMATCHED_KEY",
        `${file}: ${listSome(lacking)} lacks ${part}, which others have`,
      );
    return lacking.length === 0;
  };
  return {
    file,
    tensors: out,
    options: {
      ...describeRanks(ranks),
      bias,
      useDora: has("lora_magnitude_vector"),
      loraBias: has("lora_B_bias"),
      targetModules: matchExactly(model, [...ranks.keys()], []),
    },
  };
}

/** Splits keys into layers by path, biases by path, and all others. */
function splitKeys(tensors: Readonly<Record<string, Tensor>>): {
  layers: Map<string, string[]>;
  biases: Map<string, Tensor>;
  others: string[];
} {
  const layers = new Map<string, string[]>();
  const biases = new Map<string, Tensor>();
  const others: string[] = [];
  for (const [key, tensor] of Object.entries(tensors)) {
    const [, layer] = /^(.*)\.(?:lora_A|lora_B|lora_B_bias|lora_magnitude_vector)$/.exec(key) ?? [];
    // In loralib, the base of a convolution is its child `conv`.
    const [, biased] = /^(.*?)(?:\.conv)?\.bias$/.exec(key) ?? [];
    if (layer !== undefined) layers.set(layer, [...(layers.get(layer) ?? []), key]);
    else if (biased !== undefined) biases.set(biased, tensor);
    else others.push(key);
  }
  return { layers, biases, others };
}

function createAlphaReader(
  file: string,
  metadata: Readonly<Record<string, string>>,
  given: number | undefined,
): (path: string, module: Module) => number {
  const written = given === undefined ? parseAlpha(file, metadata[ALPHA]) : undefined;
  return (path, module) => {
    const layerAlpha =
      typeof written === "object" && written !== null ? (written as Record<string, unknown>)[path] : written;
    // A layer constructed directly keeps its alpha.
    const original =
      module instanceof LoRALayer && module.byHand ? module.adapters.get("default") : undefined;
    const alpha =
      given ?? layerAlpha ?? (original?.useRslora ? original.scaling * original.r : original?.loraAlpha);
    if (typeof alpha !== "number" || !Number.isFinite(alpha))
      throw createRefusal(FILE_REFUSALS.loralibAlpha, file, path);
    return alpha;
  };
}

/** Returns alpha, or alphas by layer, from a file's metadata. Throws `ERR_FILE_FORMAT`. */
function parseAlpha(file: string, text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch (cause) {
    const what = `${ALPHA} in its metadata is ${formatValue(text)}, and a number, or numbers by layer, were expected`;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${what}; give loraAlpha`, { cause });
  }
}

interface Plain {
  a: Tensor;
  b: Tensor;
  /** The rank here divided by loralib's rank. */
  factor: number;
}

/** Returns one layer's factors in PEFT's form. */
function convertLayer(
  file: string,
  path: string,
  module: Adaptable,
  a: Tensor,
  b: Tensor,
  enableLora: readonly boolean[] | undefined,
): Plain {
  if (module instanceof MultiheadAttention) return { a, b, factor: 1 };
  const { shape } = module.weight;
  if (shape.length > 2) {
    if (a.shape.length === 2) return rebuildConvolution(file, path, a, b, shape);
    // From `loraStateDict`: all groups share one A.
    const { geometry, inChannels } = module as ConvNd;
    if (geometry.groups === 1 || a.shape[1] === inChannels) return { a, b, factor: 1 };
    return { a: expandAcrossGroups(a, geometry.groups), b, factor: geometry.groups };
  }
  if (!(module instanceof Linear)) return { a, b, factor: 1 };
  // Factors over all inputs and outputs are plain, whatever the layer.
  if (b.shape[0] === module.outFeatures && a.shape[0] === b.shape[1]) return { a, b, factor: 1 };
  return expandSlices(file, path, a, b, module instanceof MergedLinear ? module.enableLora : enableLora);
}

/** Converts a linear layer with some slices enabled: the result's B is block-diagonal over them. */
function expandSlices(
  file: string,
  path: string,
  a: Tensor,
  b: Tensor,
  enableLora: readonly boolean[] | undefined,
): Plain {
  const [rank, r] = [a.shape[0] as number, b.shape[1] as number];
  const slices = rank / r;
  const enabled = enableLora?.filter(Boolean).length;
  if (enableLora === undefined || enabled !== slices)
    throw createRefusal(
      FILE_REFUSALS.loralibSlices,
      file,
      `${path} has ${slices}, and ${enableLora === undefined ? "none is given" : `${enabled} are enabled`}`,
    );
  const width = (b.shape[0] as number) / slices;
  const { device } = b;
  let before = 0;
  const blocks = enableLora.map((on) => {
    if (!on) return zeros([width, rank], { device });
    const block = b.slice(0, before * width, (before + 1) * width);
    const padded = padInto(block, 1, before * r, rank - (before + 1) * r);
    before++;
    return padded;
  });
  return { a, b: concatenateTensors(blocks, 0), factor: slices };
}

/**
 * Converts a convolution's A [r·k, in·k] and B [out·k, r·k] to A [r·k², in, k, k] and B [out, r·k², 1, 1]. Row i of a
 * kernel is Σ_j B[o·k + i, j]·A[j], so each (i, j) becomes one rank, with A[j] in the i-th of k parts and zeros elsewhere.
 */
function rebuildConvolution(
  file: string,
  path: string,
  a: Tensor,
  b: Tensor,
  weight: readonly number[],
): Plain {
  const [out, inputs, k, width] = weight as [number, number, number, number?];
  const square = weight.length === 4 && width === k;
  const flat = weight.slice(2).every((size) => size === 1);
  const side = square ? k : 1;
  if (
    !(square || flat) ||
    a.shape[1] !== inputs * side ||
    b.shape[0] !== out * side ||
    a.shape[0] !== b.shape[1]
  )
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `${file}: ${path}: lora_A [${a.shape.join(", ")}] and lora_B [${b.shape.join(", ")}] are none of loralib's for a weight [${weight.join(", ")}]; of convolutions it has ungrouped ones of two dimensions and square kernels`,
    );
  const [rank, columns] = a.shape as [number, number];
  const parts = Array.from({ length: side }, (_, i) => padInto(a, 1, i * columns, (side - 1 - i) * columns));
  const ones = weight.slice(2).map(() => 1);
  return {
    a: concatenateTensors(parts, 0).reshape(rank * side, inputs, ...weight.slice(2)),
    b: b.reshape(out, side * rank, ...ones),
    factor: side * side,
  };
}
