/**
 * Loralib's state dict: `X.lora_A`, `X.lora_B`, and `X.bias` where biases were trained. It says no
 * alpha: what is written here carries it in the header, and elsewhere it is asked for. Source:
 * microsoft/LoRA, loralib/layers.py.
 */
import { tensor, zeros } from "../../create.js";
import { LowrankError } from "../../errors.js";
import { Embedding } from "../../nn/embedding.js";
import type { Module } from "../../nn/module.js";
import { noGrad, scope } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { exactTargets, ranksAndAlphas } from "../exact.js";
import { MergedLinear } from "../merged-linear.js";
import { blocksOfB } from "../own-form.js";
import { targeted, type Targetable } from "../targets.js";
import { PREFIX, some, type AdapterFile } from "./adapter-file.js";
import { refuseBeyond, type FileLayers } from "./layers.js";

/** Alpha of all layers in the header, or by path as JSON. */
const ALPHA = "lora_alpha";

export function isLoralib(names: readonly string[]): boolean {
  return names.some((name) => /(^|\.)lora_[AB]$/.test(name));
}

/**
 * A file's layers as loralib names them; a layer that is a merged one in `model` in that form, where it
 * has it. What `made` lists is the caller's to dispose.
 */
export async function toLoralib(
  { layers, biases, others }: FileLayers,
  file: string,
  model?: Module,
): Promise<{ tensors: Record<string, Tensor>; metadata: Record<string, string>; made: Tensor[] }> {
  refuseBeyond("loralib", file, others);
  const tensors: Record<string, Tensor> = {};
  const made: Tensor[] = [];
  const alphas: Record<string, number> = {};
  const modules = new Map(model?.namedModules());
  for (const [path, { a, b, r, scaling }] of layers) {
    const { loraA, loraB } = a.shape.length > 2 ? convolution(path, a, b, file) : { loraA: a, loraB: b };
    const module = modules.get(path);
    const blocks = module instanceof MergedLinear ? await slicesOf(module, loraB) : undefined;
    for (const one of [loraA, loraB, blocks]) if (one !== undefined && one !== a && one !== b) made.push(one);
    tensors[`${path}.lora_A`] = loraA;
    tensors[`${path}.lora_B`] = blocks ?? loraB;
    alphas[path] = scaling * (blocks === undefined ? r : (blocks.shape[1] as number));
  }
  for (const [path, bias] of biases) tensors[`${path}.bias`] = bias;
  const values = new Set(Object.values(alphas));
  return {
    tensors,
    metadata: { format: "pt", [ALPHA]: values.size === 1 ? String([...values][0]) : JSON.stringify(alphas) },
    made,
  };
}

/**
 * A convolution in loralib's form, of the same rank: A [r·k, in·k], B [out·k, r·k]. It reads B·A as
 * the weight [out, in, k, k], so that each of k rows of a kernel has its own r rows of A.
 */
function convolution(path: string, a: Tensor, b: Tensor, file: string): { loraA: Tensor; loraB: Tensor } {
  const [r, inputs, k, width, ...rest] = a.shape as [number, number, number, number?];
  const refuse = (why: string): never => {
    throw new LowrankError("ERR_OPTION", `${file}: loralib has no form for the convolution ${path}, ${why}`);
  };
  if (b.shape[1] !== r) refuse("which is grouped: it would mix the groups' axes");
  if (width === undefined || rest.length > 0) {
    if (a.size !== r * inputs) refuse(`which is not two-dimensional: B·A does not fit its weight`);
    return noGrad(() => ({ loraA: a.reshape(r, inputs), loraB: b.reshape(-1, r) }));
  }
  if (width !== k) refuse(`whose kernel is ${k}×${width}: it knows square ones`);
  const rows = b.shape[0] as number;
  return noGrad(() => ({
    loraA: scope(() => a.reshape(r * k, inputs * k)),
    loraB: scope(() => spread(b.reshape(rows, r), k)),
  }));
}

/** B [out, r·E], if block-diagonal over the slices that are adapted, as loralib's [width·E, r]. */
async function slicesOf(module: MergedLinear, b: Tensor): Promise<Tensor | undefined> {
  const { slices, width, outFeatures } = module;
  const [rows, rank] = b.shape as [number, number];
  if (rows !== outFeatures || slices.length === 0 || rank % slices.length !== 0) return undefined;
  const whole = noGrad(() => b.to("f32"));
  const values = (await whole.data()) as Float32Array;
  if (whole !== b) whole.dispose();
  const out = blocksOfB(module, values, rank);
  if (out === undefined) return undefined;
  return tensor(out, { shape: [width * slices.length, rank / slices.length], device: b.device });
}

/** `inner` with so many zeros before and after it along `dim`. */
function within(inner: Tensor, dim: number, before: number, after: number): Tensor {
  const blank = (size: number): Tensor[] => {
    const shape = inner.shape.map((own, d) => (d === dim ? size : own));
    return size === 0 ? [] : [zeros(shape, { device: inner.device })];
  };
  return joined([...blank(before), inner, ...blank(after)], dim);
}

function joined(tensors: readonly Tensor[], dim: number): Tensor {
  const [first, ...rest] = tensors as [Tensor, ...Tensor[]];
  return rest.length === 0 ? first : first.concat(rest, dim);
}

/** B [out, r] as [out·k, r·k]: B[o, ρ] at (o·k + i, ρ·k + i) for each i, zero elsewhere. */
function spread(b: Tensor, k: number): Tensor {
  const [rows, r] = b.shape as [number, number];
  const lines = Array.from({ length: k }, (_, i) => {
    return within(b.reshape(rows, r, 1), 2, i, k - 1 - i).reshape(rows, 1, r * k);
  });
  return joined(lines, 1).reshape(rows * k, r * k);
}

export interface LoralibOptions {
  /** Where the file doesn't say it. */
  loraAlpha?: number;
  /** Which slices of merged linear layers are adapted. */
  enableLora?: readonly boolean[];
}

/**
 * A state dict of loralib's, its paths those of `model`. A merged linear layer becomes the equal
 * plain one, of rank r·E; a convolution one of rank r·k², since that is the rank its difference of
 * the weight may have. Takes the tensors over.
 * Throws `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
 */
export function fromLoralib(
  file: string,
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
  model: Targetable,
  { loraAlpha, enableLora }: LoralibOptions = {},
): AdapterFile {
  const alphaOf = alphaReader(file, metadata, loraAlpha);
  const modules = targeted(model, { targetModules: ".*" });
  const unmatched: string[] = [];
  const out: Record<string, Tensor> = {};
  const ranks = new Map<string, { r: number; loraAlpha: number }>();
  for (const [key, a] of Object.entries(tensors)) {
    const [, path, part] = /^(.*)\.(lora_A|lora_B|bias)$/.exec(key) ?? [];
    if (path === undefined) unmatched.push(key);
    if (path === undefined || part !== "lora_A") continue;
    const module = modules.get(path);
    const b = tensors[`${path}.lora_B`];
    if (module === undefined || b === undefined) {
      unmatched.push(key);
      continue;
    }
    const embedding = module instanceof Embedding;
    const { shape } = module.weight;
    const plain = noGrad(() =>
      scope(() =>
        shape.length > 2 ? rebuilt(file, path, a, b, shape) : merged(file, path, a, b, enableLora),
      ),
    );
    ranks.set(path, { r: plain.a.shape[0] as number, loraAlpha: alphaOf(path) * plain.factor });
    out[`${PREFIX}${path}.${embedding ? "lora_embedding_A" : "lora_A.weight"}`] = plain.a;
    out[`${PREFIX}${path}.${embedding ? "lora_embedding_B" : "lora_B.weight"}`] = plain.b;
  }
  unmatched.push(
    ...Object.keys(tensors).filter((key) => key.endsWith(".lora_B") && !ranks.has(key.slice(0, -7))),
  );
  if (unmatched.length > 0)
    throw new LowrankError(
      "ERR_UNMATCHED_KEY",
      `${file}: not of this model: ${some([...new Set(unmatched)])}`,
    );
  let bias: "none" | "all" | "lora_only" = "none";
  for (const [key, own] of Object.entries(tensors)) {
    // Loralib holds the base of a convolution below \`conv\`.
    const [, path] = /^(.*?)(?:\.conv)?\.bias$/.exec(key) ?? [];
    if (path === undefined) continue;
    if (!ranks.has(path)) bias = "all";
    else if (bias === "none") bias = "lora_only";
    out[`${PREFIX}${path}.${ranks.has(path) ? "base_layer.bias" : "bias"}`] = own;
  }
  return {
    file,
    tensors: out,
    options: { ...ranksAndAlphas(ranks), bias, targetModules: exactTargets(model, [...ranks.keys()], []) },
  };
}

function alphaReader(
  file: string,
  metadata: Readonly<Record<string, string>>,
  given: number | undefined,
): (path: string) => number {
  const written: unknown = metadata[ALPHA] === undefined ? undefined : JSON.parse(metadata[ALPHA]);
  return (path) => {
    const own =
      typeof written === "object" && written !== null ? (written as Record<string, unknown>)[path] : written;
    const alpha = given ?? own;
    if (typeof alpha !== "number" || !Number.isFinite(alpha))
      throw new LowrankError(
        "ERR_OPTION",
        `${file}: loralib's files don't say alpha: give loraAlpha, as it was when the layers were made`,
      );
    return alpha;
  };
}

interface Plain {
  a: Tensor;
  b: Tensor;
  /** How many times larger the rank is than loralib's. */
  factor: number;
}

/** A linear layer or an embedding; one of several slices with B block-diagonal over the enabled ones. */
function merged(
  file: string,
  path: string,
  a: Tensor,
  b: Tensor,
  enableLora: readonly boolean[] | undefined,
): Plain {
  const [rank, r] = [a.shape[0] as number, b.shape[1] as number];
  const slices = rank / r;
  if (slices === 1 && enableLora === undefined) return { a, b, factor: 1 };
  const enabled = enableLora?.filter(Boolean).length;
  if (enableLora === undefined || enabled !== slices)
    throw new LowrankError(
      "ERR_OPTION",
      `${file}: ${path} has ${slices} adapted slices; enableLora says which, and ${enableLora === undefined ? "is not given" : `enables ${enabled}`}`,
    );
  const width = (b.shape[0] as number) / slices;
  const { device } = b;
  let before = 0;
  const blocks = enableLora.map((on) => {
    if (!on) return zeros([width, rank], { device });
    const block = b.slice(0, before * width, (before + 1) * width);
    const placed = within(block, 1, before * r, rank - (before + 1) * r);
    before++;
    return placed;
  });
  return { a, b: joined(blocks, 0), factor: slices };
}

/**
 * A convolution's A [r·k, in·k] and B [out·k, r·k] as A [r·k², in, k, k] and B [out, r·k², 1, 1]:
 * row i of a kernel is Σ_j B[o·k + i, j]·A[j], so that (i, j) is a rank of its own, with A[j] in the
 * i-th of k parts and zero in the others.
 */
function rebuilt(file: string, path: string, a: Tensor, b: Tensor, weight: readonly number[]): Plain {
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
  const parts = Array.from({ length: side }, (_, i) => within(a, 1, i * columns, (side - 1 - i) * columns));
  const ones = weight.slice(2).map(() => 1);
  return {
    a: joined(parts, 0).reshape(rank * side, inputs, ...weight.slice(2)),
    b: b.reshape(out, side * rank, ...ones),
    factor: side * side,
  };
}
