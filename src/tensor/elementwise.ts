/** Elementwise operations with broadcasting. */
import * as argument from "../arguments/check.js";
import { direct, session } from "../native/binding.js";
import { drawStream } from "./random.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { checkTensor } from "./arguments.js";
import { recordBinary, recordBinaryNumber, recordUnary } from "./function.js";
import { recordInFloats, isHalf, isTensor, recordOp } from "./operand.js";

/** Options of `gelu`. */
export interface GeluOptions {
  /** `none` (erf, the default), or GPT-2's `tanh` approximation. */
  approximate?: "none" | "tanh" | undefined;
}

/** The argument above which log(1 + eˣ) rounds to x in f32. */
const SOFTPLUS_LINEAR = 17;

/** Options of `softplus`. */
export interface SoftplusOptions {
  /** Sharpness β, above 0: log(1 + exp(β·x)) / β; 1 by default. */
  beta?: number | undefined;
  /** Where β·x exceeds this, x is returned; 20 by default, beyond which f32 shows no difference. */
  threshold?: number | undefined;
}

/**
 * Shapes of two operands broadcast by NumPy's rule: from the last dimension, sizes are equal or one of them is 1. A
 * number acts as a scalar tensor. Floats of any storage compute in f32 and return f32. All methods throw
 * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`, and `ERR_OPTION` for an operand that is neither a tensor
 * nor a number.
 */
export const elementwise = {
  /** this + other. */
  add(other: Tensor | number): Tensor {
    return applyBinary("add", this, other);
  },
  /** this − other. */
  sub(other: Tensor | number): Tensor {
    return applyBinary("sub", this, other);
  },
  /** this · other, element by element. */
  mul(other: Tensor | number): Tensor {
    return applyBinary("mul", this, other);
  },
  /** this / other; ±∞ or NaN for a divisor of 0. */
  div(other: Tensor | number): Tensor {
    return applyBinary("div", this, other);
  },
  /** this to the power of other; NaN for a negative base and an exponent that is not whole. */
  pow(other: Tensor | number): Tensor {
    return applyBinary("pow", this, other);
  },
  /** The larger of the two, NaN if either is NaN; equal values share the gradient. */
  maximum(other: Tensor | number): Tensor {
    return applyBinary("maximum", this, other);
  },
  /** The smaller of the two, NaN if either is NaN; equal values share the gradient. */
  minimum(other: Tensor | number): Tensor {
    return applyBinary("minimum", this, other);
  },
  /** 1 where this = other, else 0, as i32. Comparisons have no gradient; NaN equals nothing. */
  eq(other: Tensor | number): Tensor {
    return applyBinary("eq", this, other);
  },
  /** 1 where this ≠ other, else 0, as i32. */
  ne(other: Tensor | number): Tensor {
    return applyBinary("ne", this, other);
  },
  /** 1 where this < other, else 0, as i32. */
  lt(other: Tensor | number): Tensor {
    return applyBinary("lt", this, other);
  },
  /** 1 where this ≤ other, else 0, as i32. */
  le(other: Tensor | number): Tensor {
    return applyBinary("le", this, other);
  },
  /** 1 where this > other, else 0, as i32. */
  gt(other: Tensor | number): Tensor {
    return applyBinary("gt", this, other);
  },
  /** 1 where this ≥ other, else 0, as i32. */
  ge(other: Tensor | number): Tensor {
    return applyBinary("ge", this, other);
  },

  /** −x. All functions of one operand keep its shape, return f32, and throw `ERR_DTYPE` for i32. */
  neg(): Tensor {
    return recordUnary("neg", this.id);
  },
  /** eˣ. */
  exp(): Tensor {
    return recordUnary("exp", this.id);
  },
  /** The natural logarithm; −∞ at 0, NaN below. */
  log(): Tensor {
    return recordUnary("log", this.id);
  },
  /** √x; NaN below 0. */
  sqrt(): Tensor {
    return recordUnary("sqrt", this.id);
  },
  /** 1 / √x; ∞ at 0, NaN below. */
  rsqrt(): Tensor {
    return recordUnary("rsqrt", this.id);
  },
  /** sin x of radians, within 2 ulp on the CPU for any x. */
  sin(): Tensor {
    return recordUnary("sin", this.id);
  },
  /** cos x of radians, within 2 ulp on the CPU for any x. */
  cos(): Tensor {
    return recordUnary("cos", this.id);
  },
  /** |x|, whose gradient at 0 is 0. */
  abs(): Tensor {
    return recordUnary("abs", this.id);
  },
  /** 1 where x is finite, else 0, as i32. */
  isFinite(): Tensor {
    return recordUnary("isFinite", this.id);
  },
  /** The error function 2/√π · ∫₀ˣ e^(−t²) dt. */
  erf(): Tensor {
    return recordUnary("erf", this.id);
  },
  /** log(1 + x), accurate near 0; −∞ at −1, NaN below. */
  log1p(): Tensor {
    return recordUnary("log1p", this.id);
  },
  /** eˣ − 1, accurate near 0. */
  expm1(): Tensor {
    return recordUnary("expm1", this.id);
  },
  /** log(1 + eˣ), a smooth ReLU, accurate at both ends. Throws `ERR_OPTION`. */
  softplus(options?: SoftplusOptions): Tensor {
    const { beta = 1, threshold = 20 } = argument.checkKnownOptions("softplus", options, [
      "beta",
      "threshold",
    ]);
    argument.checkNumberThat(
      "softplus",
      "beta",
      beta,
      (b) => b > 0 && Number.isFinite(b),
      "a number above 0",
    );
    argument.checkNumber("softplus", "threshold", threshold);
    if (beta === 1 && threshold >= SOFTPLUS_LINEAR) return recordUnary("softplus", this.id);
    return scope(() => {
      const x = this.mul(beta);
      const y = recordUnary("softplus", x.id).div(beta);
      return threshold >= SOFTPLUS_LINEAR ? y : this.where(x.gt(threshold), y);
    });
  },
  /** log(1 / (1 + e⁻ˣ)), accurate at both ends. */
  logSigmoid(): Tensor {
    return recordUnary("logSigmoid", this.id);
  },
  /** The nearest whole number; halves round to even. The gradient is 0, as for all step functions. */
  round(): Tensor {
    return recordUnary("round", this.id);
  },
  /** The largest whole number that is at most x. */
  floor(): Tensor {
    return recordUnary("floor", this.id);
  },
  /** The smallest whole number that is at least x. */
  ceil(): Tensor {
    return recordUnary("ceil", this.id);
  },
  /** x without its fraction. */
  trunc(): Tensor {
    return recordUnary("trunc", this.id);
  },
  /** The sign of x: −1, 0 or 1; 0 for NaN, as in PyTorch. */
  sign(): Tensor {
    return recordUnary("sign", this.id);
  },
  /** max(x, 0), whose gradient at 0 is 0. */
  relu(): Tensor {
    return recordUnary("relu", this.id);
  },
  /** x · sigmoid(x), also called swish. */
  silu(): Tensor {
    return recordUnary("silu", this.id);
  },
  /** The hyperbolic tangent of x. */
  tanh(): Tensor {
    return recordUnary("tanh", this.id);
  },
  /** 1 / (1 + e⁻ˣ). */
  sigmoid(): Tensor {
    return recordUnary("sigmoid", this.id);
  },
  /** x·Φ(x), exact by erf or in GPT-2's tanh approximation. Throws `ERR_OPTION`. */
  gelu(options?: GeluOptions): Tensor {
    const { approximate = "none" } = argument.checkKnownOptions("gelu", options, ["approximate"]);
    argument.checkChoice("gelu", "approximate", approximate, ["none", "tanh"]);
    return recordUnary(approximate === "tanh" ? "gelu_tanh" : "gelu", this.id);
  },
  /**
   * Limits elements to `low` … `high`; an infinite bound has no effect, and `high` wins where they cross. The gradient
   * is 0 outside. Throws `ERR_OPTION` for a bound that is not a number.
   */
  clamp(low: number, high: number): Tensor {
    argument.checkNumber("clamp", "low", low);
    argument.checkNumber("clamp", "high", high);
    return recordOp(() => session().clamp(this.id, low, high));
  },
  /**
   * This where `condition` is not 0, `other` elsewhere (`torch.where(condition, this, other)`); the gradient flows to
   * the selected elements. Throws `ERR_DTYPE` where this or other is i32.
   */
  where(condition: Tensor, other: Tensor | number): Tensor {
    const mask = checkTensor("where", "condition", condition);
    return runWithOperand("where", this, other, (b) => session().where(mask.id, this.id, b));
  },
  /**
   * silu(this) · up, as f32: the product of a gated MLP. Both have the same shape. Throws `ERR_SHAPE_MISMATCH`,
   * `ERR_DTYPE`.
   */
  siluMul(up: Tensor): Tensor {
    const factor = checkTensor("siluMul", "up", up);
    if (isHalf(factor.dtype)) return scope(() => this.siluMul(factor.to("f32")));
    return recordInFloats(this, (gate) => session().siluMul(gate, factor.id));
  },
  /**
   * Zeroes each element with probability `p` (0.5 by default) and scales the others by 1 / (1 − p), as f32. It always
   * does so; `nn.Dropout` does so only in training. Uses the generator of `manualSeed`. Throws `ERR_OPTION`,
   * `ERR_DTYPE` for i32.
   */
  dropout(p = 0.5): Tensor {
    argument.checkProbability("dropout", "p", p);
    return recordInFloats(this, (x) => session().dropout(x, p, ...drawStream()));
  },
} satisfies ThisType<Tensor>;
export type Elementwise = typeof elementwise;

function applyBinary(name: string, x: Tensor, other: Tensor | number): Tensor {
  if (isTensor(other)) return recordBinary(name, x.id, other.id);
  return typeof other === "number" ? recordBinaryNumber(name, x.id, other) : refuseOperand(name, other);
}

/** Runs `op` with the handle of `other`; a handle created from a number is released afterwards. */
function runWithOperand(
  name: string,
  x: Tensor,
  other: Tensor | number,
  op: (other: number) => number,
): Tensor {
  if (isTensor(other)) return recordOp(() => op(other.id));
  if (typeof other !== "number") return refuseOperand(name, other);
  const scalar = direct().number(x.id, other);
  try {
    return recordOp(() => op(scalar));
  } finally {
    direct().release(scalar);
  }
}

function refuseOperand(op: string, other: unknown): never {
  return argument.refuse(op, "other", "a tensor or a number", other);
}
