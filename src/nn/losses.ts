/** Losses, as in `torch.nn.functional`. */
import { checkNumberThat, checkChoice, checkKnownOptions, refuse } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";

/** The reduction of the elements' losses: their mean, their sum, or none. */
export type Reduction = "mean" | "sum" | "none";

/** The options of every loss. */
export interface LossOptions {
  /** `mean` by default. */
  reduction?: Reduction | undefined;
}

const REDUCTIONS: readonly Reduction[] = ["mean", "sum", "none"];

/**
 * (x − t)². Shapes: input and target [...] alike; the loss [] or, without reduction, [...]. As
 * `torch.nn.functional.mse_loss`. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for shapes that differ, which are not
 * broadcast.
 */
export function mseLoss(input: Tensor, target: Tensor, given?: LossOptions): Tensor {
  const { reduction } = checkLossOptions("mseLoss", input, target, given);
  const difference = input.sub(target);
  return reduceLosses(difference.mul(difference), reduction);
}

/**
 * |x − t|, whose gradient is 0 where they are equal. Shapes: input and target [...] alike; the loss [] or [...]. As
 * `torch.nn.functional.l1_loss`. Throws as `mseLoss`.
 */
export function l1Loss(input: Tensor, target: Tensor, given?: LossOptions): Tensor {
  const { reduction } = checkLossOptions("l1Loss", input, target, given);
  return reduceLosses(input.sub(target).abs(), reduction);
}

/** The options of `huberLoss`. */
export interface HuberOptions extends LossOptions {
  /** The difference at which the square ends and the line begins; 1 by default. */
  delta?: number | undefined;
}

/**
 * ½(x − t)² up to a difference of δ, and δ(|x − t| − ½δ) beyond (Huber 1964). Shapes: input and target [...] alike;
 * the loss [] or [...]. As `torch.nn.functional.huber_loss`. Throws as `mseLoss`.
 */
export function huberLoss(input: Tensor, target: Tensor, given?: HuberOptions): Tensor {
  const { reduction, delta = 1 } = checkLossOptions("huberLoss", input, target, given, ["delta"]);
  checkNumberThat("huberLoss", "delta", delta, (d) => d > 0 && Number.isFinite(d), "a number above 0");
  const difference = input.sub(target);
  // With c = the difference clamped to ±δ, c·(d − ½c) is both branches, and so is its gradient.
  const bounded = difference.clamp(-delta, delta);
  return reduceLosses(bounded.mul(difference.sub(bounded.mul(0.5))), reduction);
}

/** The options of `bceWithLogits`. */
export interface BceOptions extends LossOptions {
  /** A factor of each element's loss; broadcast to the input's shape. */
  weight?: Tensor | undefined;
  /** Factor of the loss of positive targets, such as negatives / positives of each class. */
  posWeight?: Tensor | undefined;
}

/**
 * Binary cross-entropy of logits: −t·log σ(x) − (1 − t)·log(1 − σ(x)), without overflow. Shapes: input and target [...] alike,
 * targets from 0 to 1; the loss [] or [...]. As `torch.nn.functional.binary_cross_entropy_with_logits`. Throws as `mseLoss`.
 */
export function bceWithLogits(input: Tensor, target: Tensor, given?: BceOptions): Tensor {
  const where = "bceWithLogits";
  const { reduction, weight, posWeight } = checkLossOptions(where, input, target, given, [
    "weight",
    "posWeight",
  ]);
  for (const [name, factor] of Object.entries({ weight, posWeight }))
    checkBroadcast(where, name, factor, input);
  // log(1 + e^-x). At 0, half of max's gradient is right, and abs has none.
  const softplus = input.abs().neg().exp().add(1).log().add(input.neg().maximum(0));
  const positive = posWeight === undefined ? softplus : posWeight.sub(1).mul(target).add(1).mul(softplus);
  const losses = target.neg().add(1).mul(input).add(positive);
  return reduceLosses(weight === undefined ? losses : losses.mul(weight), reduction);
}

/** The options of `klDiv`. */
export interface KlDivOptions {
  /** `mean` by default; `batchmean`, the sum divided by the first dimension, is the mathematical divergence. */
  reduction?: Reduction | "batchmean" | undefined;
  /** Whether targets are logarithms of probabilities; false by default. */
  logTarget?: boolean | undefined;
}

/**
 * The Kullback-Leibler divergence t·(log t − x), where the input x holds logarithms of probabilities and t holds probabilities;
 * 0 where t is 0. Shapes: input and target [...] alike; the loss [] or [...]. As `torch.nn.functional.kl_div`. Throws as
 * `mseLoss`.
 */
export function klDiv(input: Tensor, target: Tensor, given?: KlDivOptions): Tensor {
  const where = "klDiv";
  const { reduction = "mean", logTarget = false } = checkKnownOptions(where, given, [
    "reduction",
    "logTarget",
  ]);
  checkChoice(where, "reduction", reduction, [...REDUCTIONS, "batchmean"]);
  if (typeof logTarget !== "boolean") refuse(where, "logTarget", "true or false", logTarget);
  checkAlike(where, input, target);
  // log 1 where t is 0: the product of 0 and −∞ would be NaN.
  const logarithm = (): Tensor => target.where(target.eq(0).eq(0), 1).log();
  const losses = logTarget
    ? target.exp().mul(target.sub(input))
    : target.mul(logarithm()).sub(target.mul(input));
  if (reduction !== "batchmean") return reduceLosses(losses, reduction);
  return losses.sum().div(input.shape[0] ?? 1);
}

/** The options of `cosineSimilarity`. */
export interface CosineSimilarityOptions {
  /** The dimension of the vectors; 1 by default. */
  dim?: number | undefined;
  /** The lower bound of the norms, for vectors of zeros; 1e-8 by default. */
  eps?: number | undefined;
}

/**
 * a·b / (|a|·|b|) along `dim`: 1 for vectors of one direction, −1 for opposite ones. Shapes: both [...], broadcast to
 * each other, the result without `dim`. As `torch.nn.functional.cosine_similarity`. Throws `ERR_OPTION`,
 * `ERR_SHAPE_MISMATCH`.
 */
export function cosineSimilarity(a: Tensor, b: Tensor, given?: CosineSimilarityOptions): Tensor {
  const where = "cosineSimilarity";
  const { dim = 1, eps = 1e-8 } = checkKnownOptions(where, given, ["dim", "eps"]);
  checkNumberThat(where, "dim", dim, Number.isInteger, "a whole number");
  checkNumberThat(where, "eps", eps, (e) => e > 0, "a number above 0");
  if (!isTensor(a)) refuse(where, "a", "a tensor", a);
  if (!isTensor(b)) refuse(where, "b", "a tensor", b);
  const rank = Math.max(a.shape.length, b.shape.length);
  const toF32 = (x: Tensor): Tensor =>
    x.reshape([...Array<number>(rank - x.shape.length).fill(1), ...x.shape]);
  const [first, second] = [toF32(a), toF32(b)];
  const length = Math.max(first.shape.at(dim) ?? 1, second.shape.at(dim) ?? 1);
  // Each norm is at least eps, as in PyTorch. A broadcast element counts once per position.
  const normalise = (x: Tensor): Tensor => {
    const squares = x.mul(x).sum(dim, { keepDim: true });
    const all = x.shape.at(dim) === 1 ? squares.mul(length) : squares;
    return x.div(all.maximum(eps * eps).sqrt());
  };
  return normalise(first).mul(normalise(second)).sum(dim);
}

/** Checks the options of a loss over two tensors of one shape. */
function checkLossOptions<O extends LossOptions>(
  where: string,
  input: Tensor,
  target: Tensor,
  given: O | undefined,
  others: readonly (keyof O & string)[] = [],
): O & { reduction: Reduction } {
  const known = checkKnownOptions<O>(where, given, ["reduction", ...others]);
  const reduction = checkChoice(where, "reduction", known.reduction ?? "mean", REDUCTIONS);
  checkAlike(where, input, target);
  return { ...known, reduction };
}

/** Throws unless both are tensors of one shape. */
function checkAlike(where: string, input: unknown, target: unknown): void {
  if (!isTensor(input)) refuse(where, "input", "a tensor", input);
  if (!isTensor(target)) refuse(where, "target", "a tensor", target);
  if (input.shape.join() === target.shape.join()) return;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${where}: input is [${input.shape.join(", ")}] and target [${target.shape.join(", ")}]; they are of one shape`,
  );
}

/** Throws unless `value`, if given, broadcasts to the shape of `input`. */
function checkBroadcast(where: string, name: string, value: unknown, input: Tensor): void {
  if (value === undefined) return;
  if (!isTensor(value)) refuse(where, name, "a tensor", value);
  const from = value.shape.length;
  const fits = value.shape.every(
    (size, i) => size === 1 || size === input.shape[input.shape.length - from + i],
  );
  if (from <= input.shape.length && fits) return;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${where}: ${name} of shape [${value.shape.join(", ")}] is not broadcast to an input of [${input.shape.join(", ")}]`,
  );
}

function reduceLosses(losses: Tensor, reduction: Reduction): Tensor {
  if (reduction === "none") return losses;
  return reduction === "sum" ? losses.sum() : losses.mean();
}
