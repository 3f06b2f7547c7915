/** The classes of a classifier, and the loss that matches them. */
import { refuse } from "../arguments/check.js";
import { ones, tensor, zeros } from "../tensor/create.js";
import { LowrankError } from "../errors.js";
import { computeLossPerAdapter } from "../lora/adapter/per-row.js";
import type { AdapterPerRow } from "../lora/layers/rows.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";
import type { ConfigFields } from "./config-fields.js";
import { LIMIT } from "./config-parts.js";
import type { HeadLossOptions } from "./head-loss.js";
import { MODEL_REFUSALS } from "../refusals/models.js";
import { createRefusal } from "../refusals/refusal.js";

/** transformers' problem types: one class of several, values, or several classes at once. */
export type ProblemType = "single_label_classification" | "regression" | "multi_label_classification";

const PROBLEM_TYPES: readonly string[] = [
  "single_label_classification",
  "regression",
  "multi_label_classification",
];

/** Configuration fields of a classifier's classes. */
export interface LabelConfig {
  /** Names of the classes, by index. */
  labels: readonly string[];
  /** By default inferred from the number and dtype of the labels. */
  problemType: ProblemType | undefined;
}

/** Reads the classes of a configuration, or makes `requested` of them; two by default, as in transformers. */
export function readLabelConfig(config: ConfigFields, requested: number | undefined): LabelConfig {
  const named = config.readObject("id2label");
  const keys = Object.keys((config.readValue("id2label") as object | undefined) ?? {});
  const count = requested ?? (keys.length || (config.readSize("num_labels", LIMIT.labels) ?? 2));
  const labels = Array.from({ length: count }, (_, id) => {
    const name = keys.length === count ? named?.readString(String(id)) : undefined;
    return name ?? `LABEL_${id}`;
  });
  const type = config.readString("problem_type");
  if (type !== undefined && !PROBLEM_TYPES.includes(type)) {
    throw config.createError("problem_type", `must be one of ${PROBLEM_TYPES.join(", ")}`);
  }
  // With another number of classes, the file's problem type no longer applies.
  const problemType =
    keys.length === 0 || keys.length === count ? (type as ProblemType | undefined) : undefined;
  return { labels, problemType };
}

/** Returns the classes as fields of `config.json`. */
export function writeLabels({ labels, problemType }: LabelConfig): Record<string, unknown> {
  return {
    num_labels: undefined,
    id2label: Object.fromEntries(labels.map((label, id) => [id, label])),
    label2id: Object.fromEntries(labels.map((label, id) => [label, id])),
    problem_type: problemType,
  };
}

export interface ClassificationLossOptions extends HeadLossOptions {
  problemType: ProblemType | undefined;
  /** The adapter of each row, by name. */
  names: AdapterPerRow | undefined;
}

/**
 * Returns the loss of logits [B, N]: cross-entropy for i32 labels [B]; squared error for f32 [B, N] (or [B] where N is
 * 1); binary cross-entropy for f32 [B, N]. As in transformers, `problemType` decides, else N and the labels' dtype.
 * With adapter names, the mean is the sum of each adapter's mean over its rows. Without a reduction, cross-entropy
 * returns [B] and the others [B, N].
 *
 * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX`, `ERR_OPTION`.
 */
export function computeClassificationLoss(
  logits: Tensor,
  given: Tensor | Int32Array,
  { problemType, names, labelSmoothing, reduction }: ClassificationLossOptions,
): Tensor {
  if (!(isTensor(given) || given instanceof Int32Array))
    refuse("forward", "labels", "a tensor or an Int32Array", given);
  const labels = isTensor(given) ? given : tensor(given, { device: logits.device });
  const [B, N] = logits.shape as [number, number];
  const type = chooseProblemType(problemType, N, labels.dtype === "i32");
  const single = type === "single_label_classification";
  const fits = labels.size === (single ? B : B * N) && labels.shape[0] === B;
  if (!fits) {
    const expected = single || N === 1 ? `[${B}]` : `[${B}, ${N}]`;
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `forward: labels are [${labels.shape.join(", ")}]; ${type} of ${B} rows takes ${expected}`,
    );
  }
  const apart = names !== undefined && reduction === "mean";
  if (single) {
    const targets = labels.reshape(B);
    if (!apart) return logits.crossEntropy(targets, { labelSmoothing, reduction });
    const losses = logits.crossEntropy(targets, { labelSmoothing, reduction: "none" });
    const counted = targets.eq(-100).to("f32").neg().add(1);
    return computeLossPerAdapter(losses.reshape(B, 1), counted.reshape(B, 1), names);
  }
  if (labelSmoothing !== 0) throw createRefusal(MODEL_REFUSALS.smoothedLabels, "forward", type);
  const targets = labels.to("f32").reshape(B, N);
  const losses =
    type === "regression" ? computeSquares(logits, targets) : computeBinaryCrossEntropy(logits, targets);
  if (apart) return computeLossPerAdapter(losses, ones([B, N], { device: logits.device }), names);
  return reduction === "none" ? losses : losses[reduction]();
}

/** Returns the problem type: `named`, else by N, and by whether each label is a single class (`single`). */
export function chooseProblemType(named: ProblemType | undefined, N: number, single: boolean): ProblemType {
  if (named !== undefined) return named;
  if (N === 1) return "regression";
  return single ? "single_label_classification" : "multi_label_classification";
}

function computeSquares(predicted: Tensor, targets: Tensor): Tensor {
  const difference = predicted.sub(targets);
  return difference.mul(difference);
}

/** Returns −y·log p − (1 − y)·log(1 − p) for logits [B, N], where p is their sigmoid. */
function computeBinaryCrossEntropy(logits: Tensor, targets: Tensor): Tensor {
  const [B, N] = logits.shape as [number, number];
  // log(1 − p) and log p as a log-softmax over [0, logit], which is stable.
  const pairs = zeros([B, N, 1], { device: logits.device }).concat(logits.unsqueeze(2), 2).logSoftmax(2);
  const [no, yes] = [pairs.slice(2, 0, 1).reshape(B, N), pairs.slice(2, 1, 2).reshape(B, N)];
  return yes
    .mul(targets)
    .add(no.mul(targets.neg().add(1)))
    .neg();
}
