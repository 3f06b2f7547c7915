/** Metrics that a `Trainer`'s loss function returns next to the loss: weighted means over the batches of a step. */
import { isPlain, checkKnownOptions, refuse, formatValue } from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { keep, noGrad } from "../../tensor/scope.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";

/** Values by name: numbers, or tensors of one value, which are read together with the loss. */
export type LossMetrics = Readonly<Record<string, number | Tensor>>;

/** A loss function's result: the loss, alone or with metrics. */
export type LossResult =
  | Tensor
  | {
      /** The loss, one value. */
      loss: Tensor;
      /** Metrics by name, which the step's event reports. */
      metrics?: LossMetrics | undefined;
    };

/** A validated result of a loss function. */
export interface CheckedLoss {
  loss: Tensor;
  metrics: LossMetrics;
}

const NONE: LossMetrics = {};
/** The maximum length of a metric's name. */
const LONGEST = 100;

/** Validates the result of a loss function. Throws `ERR_OPTION`, and `ERR_SHAPE_MISMATCH` for a loss of several values. */
export function checkLoss(value: unknown): CheckedLoss {
  if (isTensor(value)) return { loss: readScalarLoss(value), metrics: NONE };
  if (value instanceof Promise) {
    value.catch(() => {});
    throw new LowrankError(
      "ERR_OPTION",
      "Trainer: loss returned a promise; make it synchronous, and await asynchronous work in data",
    );
  }
  if (!isPlain(value))
    return refuse("Trainer", "loss", "a function that returns a tensor, or { loss, metrics }", value);
  const { loss, metrics } = checkKnownOptions(
    "Trainer: the result of loss",
    value as { loss?: unknown; metrics?: unknown },
    ["loss", "metrics"],
  );
  if (!isTensor(loss)) return refuse("Trainer: the result of loss", "loss", "a tensor", loss);
  return { loss: readScalarLoss(loss), metrics: metrics === undefined ? NONE : checkMetrics(metrics) };
}

function readScalarLoss(loss: Tensor): Tensor {
  if (loss.size === 1) return loss;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `Trainer: loss returned a tensor of shape [${loss.shape.join(", ")}]; return one value, the mean over the batch`,
  );
}

function checkMetrics(metrics: unknown): LossMetrics {
  const where = "Trainer: the result of loss";
  if (!isPlain(metrics))
    return refuse(where, "metrics", "an object of numbers and tensors of one value", metrics);
  for (const [name, value] of Object.entries(metrics)) {
    if (name.trim() === "" || name.length > LONGEST || /\p{Cc}/u.test(name))
      throw new LowrankError(
        "ERR_OPTION",
        `${where}: metric ${formatValue(name)} needs a name of 1 to ${LONGEST} printable characters`,
      );
    if (typeof value !== "number" && !(isTensor(value) && value.size === 1))
      refuse(where, `metrics[${JSON.stringify(name)}]`, "a number or a tensor of one value", value);
  }
  return metrics as LossMetrics;
}

/** Sums metrics over batches. Its tensors outlive scopes until `read` or `discard`. */
export class MetricSums {
  readonly #parts = new Map<string, { value: number | Tensor; weight: number }[]>();

  /** Adds the metrics of a batch, weighted by `weight`. */
  add(metrics: LossMetrics, weight: number): void {
    for (const [name, value] of Object.entries(metrics)) {
      const parts = this.#parts.get(name) ?? [];
      this.#parts.set(name, parts);
      if (!isTensor(value)) parts.push({ value, weight });
      else {
        const detached = noGrad(() => value.detach());
        keep(detached);
        parts.push({ value: detached, weight });
      }
    }
  }

  /** Returns the mean of each metric over the batches that had it; undefined if no batch had any. */
  async read(): Promise<Record<string, number> | undefined> {
    if (this.#parts.size === 0) return undefined;
    // All reads begin before the first is awaited.
    const reads = [...this.#parts].map(async ([name, parts]) => {
      const values = await Promise.all(parts.map(({ value }) => (isTensor(value) ? value.item() : value)));
      const weights = parts.reduce((sum, { weight }) => sum + weight, 0);
      const sum = values.reduce(
        (total, value, i) => total + value * (parts[i] as { weight: number }).weight,
        0,
      );
      return [name, weights > 0 ? sum / weights : NaN] as const;
    });
    const found = Promise.all(reads);
    this.discard();
    return Object.fromEntries(await found);
  }

  /** Frees the tensors. */
  discard(): void {
    for (const parts of this.#parts.values())
      for (const { value } of parts) if (isTensor(value)) value.dispose();
    this.#parts.clear();
  }
}
