/** Operations on each element, with broadcasting. */
import { direct, session } from "../native.js";
import { nextDropout } from "../random.js";
import type { Tensor } from "../tensor.js";
import { binary, binaryNumber, unary } from "./function.js";
import { Layout } from "./layout.js";
import { made, Operand } from "./operand.js";

export abstract class Elementwise extends Layout {
  add(other: Tensor | number): Tensor {
    return this.#binary("add", other);
  }
  sub(other: Tensor | number): Tensor {
    return this.#binary("sub", other);
  }
  mul(other: Tensor | number): Tensor {
    return this.#binary("mul", other);
  }
  div(other: Tensor | number): Tensor {
    return this.#binary("div", other);
  }
  pow(other: Tensor | number): Tensor {
    return this.#binary("pow", other);
  }
  maximum(other: Tensor | number): Tensor {
    return this.#binary("maximum", other);
  }
  minimum(other: Tensor | number): Tensor {
    return this.#binary("minimum", other);
  }
  /** 1 where equal, 0 elsewhere, as i32; so are `lt` and `gt`. */
  eq(other: Tensor | number): Tensor {
    return this.#binary("eq", other);
  }
  lt(other: Tensor | number): Tensor {
    return this.#binary("lt", other);
  }
  gt(other: Tensor | number): Tensor {
    return this.#binary("gt", other);
  }
  neg(): Tensor {
    return this.#unary("neg");
  }
  exp(): Tensor {
    return this.#unary("exp");
  }
  log(): Tensor {
    return this.#unary("log");
  }
  sqrt(): Tensor {
    return this.#unary("sqrt");
  }
  abs(): Tensor {
    return this.#unary("abs");
  }
  relu(): Tensor {
    return this.#unary("relu");
  }
  silu(): Tensor {
    return this.#unary("silu");
  }
  tanh(): Tensor {
    return this.#unary("tanh");
  }
  sigmoid(): Tensor {
    return this.#unary("sigmoid");
  }
  /** x·Φ(x), by erf, or by its tanh form as GPT-2 has it. */
  gelu({ approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
    return this.#unary(approximate === "tanh" ? "gelu_tanh" : "gelu");
  }
  clamp(low: number, high: number): Tensor {
    return made(() => session().clamp(this.id, low, high));
  }
  /** This where `condition` is not 0, `other` elsewhere. */
  where(condition: Tensor, other: Tensor | number): Tensor {
    return this.#with(other, (b) => session().where(condition.id, this.id, b));
  }
  /** silu(this) · up: the product of a gated MLP. */
  siluMul(up: Tensor): Tensor {
    return made(() => session().siluMul(this.id, up.id));
  }
  /** Zeroes each element with probability `p` and scales the others by 1 / (1 − p). */
  dropout(p = 0.5): Tensor {
    return made(() => session().dropout(this.id, p, ...nextDropout()));
  }

  #unary(name: string): Tensor {
    return unary(name, this.id);
  }

  #binary(name: string, other: Tensor | number): Tensor {
    return other instanceof Operand ? binary(name, this.id, other.id) : binaryNumber(name, this.id, other);
  }

  /** Runs `op` with the handle of `other`; one made of a number does not outlive it. */
  #with(other: Tensor | number, op: (other: number) => number): Tensor {
    if (other instanceof Operand) return made(() => op(other.id));
    const scalar = direct().number(this.id, other);
    try {
      return made(() => op(scalar));
    } finally {
      direct().release(scalar);
    }
  }
}
