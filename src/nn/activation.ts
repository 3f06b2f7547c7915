/** Activations as layers, for models that are lists of layers. */
import { checkNumberThat, checkChoice, checkKnownOptions } from "../arguments/check.js";
import { scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkInput } from "./inputs.js";
import { Module } from "./module.js";

const FINITE = "a finite number";

/** max(x, 0) of each element. As `torch.nn.ReLU`. */
export class ReLU extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("ReLU", x).relu();
  }
}

/** The options of `GELU`. */
export interface GELUOptions {
  /** The exact form by erf (`none`, the default), or the tanh approximation, as in GPT-2. */
  approximate?: "none" | "tanh" | undefined;
}

/** x·Φ(x) of each element (Hendrycks and Gimpel 2016). As `torch.nn.GELU`. */
export class GELU extends Module {
  /** The form that is computed. */
  readonly approximate: "none" | "tanh";

  /** By erf, or by tanh if `approximate` is `tanh`. Throws `ERR_OPTION`. */
  constructor(given?: GELUOptions) {
    super();
    const { approximate = "none" } = checkKnownOptions("GELU", given, ["approximate"]);
    this.approximate = checkChoice("GELU", "approximate", approximate, ["none", "tanh"]);
  }

  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("GELU", x).gelu({ approximate: this.approximate });
  }
}

/** x·sigmoid(x) of each element (Elfwing et al. 2017). As `torch.nn.SiLU`. */
export class SiLU extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("SiLU", x).silu();
  }
}

/** The hyperbolic tangent of each element. As `torch.nn.Tanh`. */
export class Tanh extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("Tanh", x).tanh();
  }
}

/** 1 / (1 + e⁻ˣ) of each element. As `torch.nn.Sigmoid`. */
export class Sigmoid extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("Sigmoid", x).sigmoid();
  }
}

/** x above 0, slope · x elsewhere (Maas et al. 2013). As `torch.nn.LeakyReLU`. */
export class LeakyReLU extends Module {
  /** The slope below 0. */
  readonly negativeSlope: number;

  /** With the slope `negativeSlope` below 0; 0.01 by default. Throws `ERR_OPTION`. */
  constructor(negativeSlope = 0.01) {
    super();
    this.negativeSlope = checkNumberThat(
      "LeakyReLU",
      "negativeSlope",
      negativeSlope,
      Number.isFinite,
      FINITE,
    );
  }

  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    checkInput("LeakyReLU", x);
    return scope(() => x.where(x.gt(0), x.mul(this.negativeSlope)));
  }
}

/** x above 0, alpha · (eˣ − 1) elsewhere (Clevert et al. 2016). As `torch.nn.ELU`. */
export class ELU extends Module {
  /** The output approaches −alpha at −∞. */
  readonly alpha: number;

  /** With `alpha`, 1 by default. Throws `ERR_OPTION`. */
  constructor(alpha = 1) {
    super();
    this.alpha = checkNumberThat("ELU", "alpha", alpha, Number.isFinite, FINITE);
  }

  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    checkInput("ELU", x);
    // Clamped, since the slope of a large x is infinite, and 0·∞ is NaN.
    return scope(() => x.where(x.gt(0), x.clamp(-Infinity, 0).expm1().mul(this.alpha)));
  }
}

/** log(1 + exp(β·x)) / β of each element, a smooth ReLU. As `torch.nn.Softplus`. */
export class Softplus extends Module {
  /** Sharpness β. */
  readonly beta: number;
  /** Where β·x exceeds this, x itself is returned. */
  readonly threshold: number;

  /** With β = `beta`, 1 by default, and `threshold`, 20 by default. Throws `ERR_OPTION`. */
  constructor(beta = 1, threshold = 20) {
    super();
    const above = (b: number): boolean => b > 0 && Number.isFinite(b);
    this.beta = checkNumberThat("Softplus", "beta", beta, above, "a number above 0");
    this.threshold = checkNumberThat("Softplus", "threshold", threshold, Number.isFinite, FINITE);
  }

  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("Softplus", x).softplus({ beta: this.beta, threshold: this.threshold });
  }
}

/** log(1 / (1 + e⁻ˣ)) of each element. As `torch.nn.LogSigmoid`. */
export class LogSigmoid extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("LogSigmoid", x).logSigmoid();
  }
}
