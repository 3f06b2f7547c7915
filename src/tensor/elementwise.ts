/** Operations on each element, with broadcasting. */
import * as argument from "../argument.js";
import { direct, session } from "../native.js";
import { nextDropout } from "../random.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { tensorOf } from "./arguments.js";
import { binary, binaryNumber, unary } from "./function.js";
import { Layout } from "./layout.js";
import { isHalf, isTensor, made } from "./operand.js";

/** Options of `gelu`. */
export interface GeluOptions {
  /** By erf (`none`, by default), or by tanh as GPT-2 has it. */
  approximate?: "none" | "tanh" | undefined;
}

/** From here on log(1 + eˣ) rounds to x in f32. */
const SOFTPLUS_LINEAR = 17;

/** Options of `softplus`. */
export interface SoftplusOptions {
  /** Sharpness β, above 0: log(1 + exp(β·x)) / β; 1 by default. */
  beta?: number | undefined;
  /** Where β·x exceeds this, x itself is returned; 20 by default, beyond which f32 shows no difference. */
  threshold?: number | undefined;
}

/**
 * Shapes of two operands broadcast by NumPy's rule: from the last dimension on, sizes are equal or one of them is 1. A
 * number stands for a tensor of its value. Floats of any storage compute in f32 and give f32. All throw
 * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`, and `ERR_OPTION` for what is neither tensor nor number.
 */
export abstract class Elementwise extends Layout {
  /** this + other. */
  add(other: Tensor | number): Tensor {
    return this.#binary("add", other);
  }
  /** this − other. */
  sub(other: Tensor | number): Tensor {
    return this.#binary("sub", other);
  }
  /** this · other, element by element. */
  mul(other: Tensor | number): Tensor {
    return this.#binary("mul", other);
  }
  /** this / other; ±∞ or NaN for a divisor of 0. */
  div(other: Tensor | number): Tensor {
    return this.#binary("div", other);
  }
  /** this to the power of other; NaN for a negative base and an exponent that is not whole. */
  pow(other: Tensor | number): Tensor {
    return this.#binary("pow", other);
  }
  /** The larger of the two, NaN where one is; equals share the gradient. */
  maximum(other: Tensor | number): Tensor {
    return this.#binary("maximum", other);
  }
  /** The smaller of the two, NaN where one is; equals share the gradient. */
  minimum(other: Tensor | number): Tensor {
    return this.#binary("minimum", other);
  }
  /** 1 where this = other, 0 elsewhere, as i32. Comparisons have no gradient; NaN equals nothing. */
  eq(other: Tensor | number): Tensor {
    return this.#binary("eq", other);
  }
  /** 1 where this ≠ other, 0 elsewhere, as i32. */
  ne(other: Tensor | number): Tensor {
    return this.#binary("ne", other);
  }
  /** 1 where this < other, 0 elsewhere, as i32. */
  lt(other: Tensor | number): Tensor {
    return this.#binary("lt", other);
  }
  /** 1 where this ≤ other, 0 elsewhere, as i32. */
  le(other: Tensor | number): Tensor {
    return this.#binary("le", other);
  }
  /** 1 where this > other, 0 elsewhere, as i32. */
  gt(other: Tensor | number): Tensor {
    return this.#binary("gt", other);
  }
  /** 1 where this ≥ other, 0 elsewhere, as i32. */
  ge(other: Tensor | number): Tensor {
    return this.#binary("ge", other);
  }

  /** −x. As every function of one operand: of its shape, in f32; throws `ERR_DTYPE` for i32. */
  neg(): Tensor {
    return this.#unary("neg");
  }
  /** eˣ. */
  exp(): Tensor {
    return this.#unary("exp");
  }
  /** The natural logarithm; −∞ at 0, NaN below. */
  log(): Tensor {
    return this.#unary("log");
  }
  /** √x; NaN below 0. */
  sqrt(): Tensor {
    return this.#unary("sqrt");
  }
  /** 1 / √x; ∞ at 0, NaN below. */
  rsqrt(): Tensor {
    return this.#unary("rsqrt");
  }
  /** sin x of radians, within 2 ulp on the cpu for x of any size. */
  sin(): Tensor {
    return this.#unary("sin");
  }
  /** cos x of radians, within 2 ulp on the cpu for x of any size. */
  cos(): Tensor {
    return this.#unary("cos");
  }
  /** |x|, whose gradient at 0 is 0. */
  abs(): Tensor {
    return this.#unary("abs");
  }
  /** 1 where x is neither NaN nor infinite, 0 elsewhere, as i32. */
  isFinite(): Tensor {
    return this.#unary("isFinite");
  }
  /** The error function 2/√π · ∫₀ˣ e^(−t²) dt. */
  erf(): Tensor {
    return this.#unary("erf");
  }
  /** log(1 + x), accurate near 0; −∞ at −1, NaN below. */
  log1p(): Tensor {
    return this.#unary("log1p");
  }
  /** eˣ − 1, accurate near 0. */
  expm1(): Tensor {
    return this.#unary("expm1");
  }
  /** log(1 + eˣ), a smooth ReLU, accurate at both ends. Throws `ERR_OPTION`. */
  softplus(options?: SoftplusOptions): Tensor {
    const { beta = 1, threshold = 20 } = argument.options("softplus", options, ["beta", "threshold"]);
    argument.numberThat("softplus", "beta", beta, (b) => b > 0 && Number.isFinite(b), "a number above 0");
    argument.numeric("softplus", "threshold", threshold);
    if (beta === 1 && threshold >= SOFTPLUS_LINEAR) return this.#unary("softplus");
    return scope(() => {
      const x = this.mul(beta);
      const y = unary("softplus", x.id).div(beta);
      return threshold >= SOFTPLUS_LINEAR ? y : this.self.where(x.gt(threshold), y);
    });
  }
  /** log(1 / (1 + e⁻ˣ)), accurate at both ends. */
  logSigmoid(): Tensor {
    return this.#unary("logSigmoid");
  }
  /** The nearest whole number; halves go to the even one. The gradient is 0, as of all steps. */
  round(): Tensor {
    return this.#unary("round");
  }
  /** The largest whole number that is not above x. */
  floor(): Tensor {
    return this.#unary("floor");
  }
  /** The smallest whole number that is not below x. */
  ceil(): Tensor {
    return this.#unary("ceil");
  }
  /** x without its fraction. */
  trunc(): Tensor {
    return this.#unary("trunc");
  }
  /** −1, 0 or 1 by the sign of x; 0 for NaN, as in PyTorch. */
  sign(): Tensor {
    return this.#unary("sign");
  }
  /** max(x, 0), whose gradient at 0 is 0. */
  relu(): Tensor {
    return this.#unary("relu");
  }
  /** x · sigmoid(x), also called swish. */
  silu(): Tensor {
    return this.#unary("silu");
  }
  /** The hyperbolic tangent of x. */
  tanh(): Tensor {
    return this.#unary("tanh");
  }
  /** 1 / (1 + e⁻ˣ). */
  sigmoid(): Tensor {
    return this.#unary("sigmoid");
  }
  /** x·Φ(x), by erf, or by its tanh form as GPT-2 has it. Throws `ERR_OPTION`. */
  gelu(options?: GeluOptions): Tensor {
    const { approximate = "none" } = argument.options("gelu", options, ["approximate"]);
    argument.oneOf("gelu", "approximate", approximate, ["none", "tanh"]);
    return this.#unary(approximate === "tanh" ? "gelu_tanh" : "gelu");
  }
  /**
   * Within `low` and `high`, of which an infinite one bounds nothing; `high` where they cross. The gradient is 0 outside.
   * Throws `ERR_OPTION` for a bound that is no number.
   */
  clamp(low: number, high: number): Tensor {
    argument.numeric("clamp", "low", low);
    argument.numeric("clamp", "high", high);
    return made(() => session().clamp(this.id, low, high));
  }
  /**
   * This where `condition` is not 0, `other` elsewhere (`torch.where(condition, this, other)`); the gradient goes to what
   * was taken. Throws `ERR_DTYPE` where this or other is i32.
   */
  where(condition: Tensor, other: Tensor | number): Tensor {
    const of = tensorOf("where", "condition", condition);
    return this.#with("where", other, (b) => session().where(of.id, this.id, b));
  }
  /** silu(this) · up, as f32: the product of a gated MLP, both of one shape. Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`. */
  siluMul(up: Tensor): Tensor {
    const of = tensorOf("siluMul", "up", up);
    if (isHalf(of.dtype)) return scope(() => this.siluMul(of.to("f32")));
    return this.inFloats((gate) => session().siluMul(gate, of.id));
  }
  /**
   * Zeroes each element with probability `p` (0.5 by default) and scales the others by 1 / (1 − p), always; `nn.Dropout`
   * does it in training alone. It gives f32, and the mask is of the generator that `manualSeed` starts. Throws
   * `ERR_OPTION`, `ERR_DTYPE` for i32.
   */
  dropout(p = 0.5): Tensor {
    argument.probability("dropout", "p", p);
    return this.inFloats((x) => session().dropout(x, p, ...nextDropout()));
  }

  #unary(name: string): Tensor {
    return unary(name, this.id);
  }

  #binary(name: string, other: Tensor | number): Tensor {
    if (isTensor(other)) return binary(name, this.id, other.id);
    return typeof other === "number" ? binaryNumber(name, this.id, other) : notOperand(name, other);
  }

  /** Runs `op` with the handle of `other`; one made of a number does not outlive it. */
  #with(name: string, other: Tensor | number, op: (other: number) => number): Tensor {
    if (isTensor(other)) return made(() => op(other.id));
    if (typeof other !== "number") return notOperand(name, other);
    const scalar = direct().number(this.id, other);
    try {
      return made(() => op(scalar));
    } finally {
      direct().release(scalar);
    }
  }
}

function notOperand(op: string, other: unknown): never {
  return argument.refuse(op, "other", "a tensor or a number", other);
}
