/** What is added to a text's logits before sampling: a bias for each token, and penalties on the chosen tokens. */
import type { Device } from "../device/device.js";
import { ones, tensor, zeros } from "../tensor/create.js";
import { keep } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { CheckedOptions } from "./generate-options.js";

/** The options of one text. */
export type ShiftOptions = Pick<CheckedOptions, "frequencyPenalty" | "presencePenalty" | "logitBias">;

/** Returns whether the options change a logit. */
export function shiftsLogits({ frequencyPenalty, presencePenalty, logitBias }: ShiftOptions): boolean {
  return frequencyPenalty !== 0 || presencePenalty !== 0 || logitBias.size > 0;
}

/**
 * The shifts of a batch, as OpenAI's documentation defines them: logit j plus bias[j] − c[j] × frequency penalty −
 * (c[j] > 0) × presence penalty, where c[j] is how often token j has been chosen. The prompt's tokens do not count.
 */
export class LogitShifts {
  /** f32 [n, V], how often each token has been chosen. */
  #counts: Tensor;
  /** f32 [n, 1]. */
  readonly #frequency: Tensor;
  readonly #presence: Tensor;

  /** `bias` and `counts` are f32 [n, V]. */
  private constructor(
    rows: readonly ShiftOptions[],
    private readonly bias: Tensor,
    counts: Tensor,
  ) {
    const column = (values: number[]): Tensor =>
      tensor(values, { shape: [rows.length, 1], device: bias.device });
    this.#counts = counts;
    this.#frequency = column(rows.map(({ frequencyPenalty }) => frequencyPenalty));
    this.#presence = column(rows.map(({ presencePenalty }) => presencePenalty));
    for (const own of this.#tensors) keep(own);
  }

  /** Creates the shifts of texts without chosen tokens; `vocabulary` is the number of logits. */
  static create(rows: readonly ShiftOptions[], vocabulary: number, device: Device): LogitShifts {
    const shape = [rows.length, vocabulary];
    const bias = new Float32Array(rows.length * vocabulary);
    for (const [row, { logitBias }] of rows.entries())
      for (const [token, value] of logitBias) bias[row * vocabulary + token] = value;
    return new LogitShifts(rows, tensor(bias, { shape, device }), zeros(shape, { device }));
  }

  /** Combines rows of batches; `join` concatenates the named state of the rows, zeros for batches without shifts. */
  static fromRows(
    rows: readonly ShiftOptions[],
    join: (read: (shifts: LogitShifts) => Tensor) => Tensor,
  ): LogitShifts {
    return new LogitShifts(
      rows,
      join(({ bias }) => bias),
      join((shifts) => shifts.#counts),
    );
  }

  /** Returns logits [n, V] with the shifts added, as f32. Call it in a scope. */
  apply(logits: Tensor): Tensor {
    const x = logits.dtype === "f32" ? logits : logits.to("f32");
    const penalties = this.#counts.mul(this.#frequency).add(this.#counts.sign().mul(this.#presence));
    return x.add(this.bias).sub(penalties);
  }

  /** Counts the chosen tokens i32 [n, 1]. */
  count(token: Tensor): void {
    const old = this.#counts;
    this.#counts = old.scatterAdd(1, token, ones(token.shape, { device: old.device }));
    keep(this.#counts);
    old.dispose();
  }

  dispose(): void {
    for (const own of this.#tensors) own.dispose();
  }

  get #tensors(): Tensor[] {
    return [this.bias, this.#counts, this.#frequency, this.#presence];
  }
}
