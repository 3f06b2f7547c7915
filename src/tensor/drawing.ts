/** Random sampling with a tensor's elements as probabilities. */
import * as argument from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { drawStream } from "./random.js";
import { noGrad, scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { formatShape } from "./arguments.js";
import { recordOp, widen } from "./operand.js";

/** Options of `multinomial`. */
export interface MultinomialOptions {
  /** Whether an index may be drawn more than once; false by default. */
  replacement?: boolean | undefined;
}

/** The maximum random numbers of one piece of `multinomial` with replacement. */
const PIECE = 2 ** 22;

export const drawing = {
  /**
   * Returns 1 with each element as the probability, else 0, as f32; NaN where the element is not a probability from 0
   * to 1. Uses the generator of `manualSeed`; results are the same on every device. It has no gradient. Throws
   * `ERR_DTYPE` for i32.
   */
  bernoulli(): Tensor {
    if (this.dtype === "i32") {
      throw new LowrankError("ERR_DTYPE", 'bernoulli: takes floats, not i32; convert with to("f32")');
    }
    return noGrad(() =>
      scope(() => {
        const p = widen(this);
        const draws = recordOp(() =>
          session().randomUniform(this.device, [...this.shape], ...drawStream(), 0, 1),
        );
        return draws.lt(p).to("f32").where(p.clamp(0, 1).eq(p), NaN);
      }),
    );
  },

  /**
   * Draws indices with probabilities proportional to the elements along the last dimension, as i32, [count] or [B,
   * count], as `torch.multinomial`. Returns −1 where nothing can be drawn: in a row with a negative, infinite or NaN
   * element, and, without replacement, once all elements above 0 have been drawn.
   *
   * Uses the generator of `manualSeed`; results are the same on every device. With replacement each index costs as many
   * random numbers as a row has elements; without, all indices of a row together do. Shapes: this is [C] or [B, C].
   * Throws `ERR_SHAPE_MISMATCH`, also for more than C without replacement; `ERR_DTYPE` for i32, `ERR_OPTION`.
   */
  multinomial(count: number, options?: MultinomialOptions): Tensor {
    const { replacement = false } = argument.checkKnownOptions("multinomial", options, ["replacement"]);
    argument.checkFlag("multinomial", "replacement", replacement);
    argument.checkWhole("multinomial", "count", count, 1);
    const { shape } = this;
    const classes = shape.at(-1) ?? 0;
    if (this.dtype === "i32") {
      throw new LowrankError("ERR_DTYPE", 'multinomial: takes floats, not i32; convert with to("f32")');
    }
    if (shape.length < 1 || shape.length > 2 || classes === 0 || (!replacement && count > classes)) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `multinomial: ${count} indices cannot be drawn ${replacement ? "with" : "without"} replacement from ${formatShape(shape)}; ` +
          `it takes [C] or [B, C]${replacement ? "" : ` with C of at least ${count}`}`,
      );
    }
    return noGrad(() =>
      scope(() => {
        const weights = widen(this).reshape(-1, classes);
        const rows = weights.shape[0] as number;
        const sound = weights.clamp(0, 3e38).eq(weights).all(-1, { keepDim: true });
        const samples = replacement
          ? drawWithReplacement(weights, count)
          : drawWithoutReplacement(weights, count);
        const indices = samples.indices.to("f32").where(samples.values.gt(0), -1).where(sound, -1).to("i32");
        return shape.length === 1 ? indices.reshape(count) : indices.reshape(rows, count);
      }),
    );
  },
} satisfies ThisType<Tensor>;
export type Drawing = typeof drawing;

/** Draws without replacement: the largest weights divided by exponential random numbers. */
function drawWithoutReplacement(weights: Tensor, count: number): { values: Tensor; indices: Tensor } {
  return scaleRandomly(weights, weights.shape).topk(count);
}

/** Draws with replacement, [B, count]: a separate race for each index. */
function drawWithReplacement(weights: Tensor, count: number): { values: Tensor; indices: Tensor } {
  const [rows, classes] = weights.shape as [number, number];
  const most = Math.max(1, Math.floor(PIECE / Math.max(1, rows * classes)));
  const pieces: { values: Tensor; indices: Tensor }[] = [];
  for (let from = 0; from < count; from += most) {
    const draws = Math.min(most, count - from);
    const { values, indices } = scaleRandomly(weights.reshape(rows, 1, classes), [rows, draws, classes]).topk(
      1,
    );
    pieces.push({ values: values.squeeze(-1), indices: indices.squeeze(-1) });
  }
  const [first, ...others] = pieces as [(typeof pieces)[0], ...typeof pieces];
  if (others.length === 0) return first;
  return {
    values: first.values.concat(
      others.map(({ values }) => values),
      1,
    ),
    indices: first.indices.concat(
      others.map(({ indices }) => indices),
      1,
    ),
  };
}

/** Returns weights times random factors of `shape`; products round the same on every device. */
function scaleRandomly(weights: Tensor, shape: readonly number[]): Tensor {
  const factors = recordOp(() =>
    session().randomInverseExponential(weights.device, [...shape], ...drawStream()),
  );
  return factors.mul(weights);
}
