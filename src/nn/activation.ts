/** Activations as layers, for where a model is a list of them. */
import { oneOf, options } from "../argument.js";
import type { Tensor } from "../tensor.js";
import { inputOf } from "./inputs.js";
import { Module } from "./module.js";

/** max(x, 0) of each element. As `torch.nn.ReLU`. */
export class ReLU extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` for what is no tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return inputOf("ReLU", x).relu();
  }
}

/** The options of `GELU`. */
export interface GELUOptions {
  /** By erf (`none`, unless given), or its tanh form, which GPT-2 has. */
  approximate?: "none" | "tanh" | undefined;
}

/** x·Φ(x) of each element (Hendrycks and Gimpel 2016). As `torch.nn.GELU`. */
export class GELU extends Module {
  /** Which form it is computed by. */
  readonly approximate: "none" | "tanh";

  /** By erf unless `approximate` is `tanh`. Throws `ERR_OPTION`. */
  constructor(given?: GELUOptions) {
    super();
    const { approximate = "none" } = options("GELU", given, ["approximate"]);
    this.approximate = oneOf("GELU", "approximate", approximate, ["none", "tanh"]);
  }

  /** Shapes: x and y [...]. Throws `ERR_OPTION` for what is no tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return inputOf("GELU", x).gelu({ approximate: this.approximate });
  }
}

/** x·sigmoid(x) of each element (Elfwing et al. 2017). As `torch.nn.SiLU`. */
export class SiLU extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` for what is no tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return inputOf("SiLU", x).silu();
  }
}

/** The hyperbolic tangent of each element. As `torch.nn.Tanh`. */
export class Tanh extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` for what is no tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return inputOf("Tanh", x).tanh();
  }
}

/** 1 / (1 + e⁻ˣ) of each element. As `torch.nn.Sigmoid`. */
export class Sigmoid extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` for what is no tensor, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return inputOf("Sigmoid", x).sigmoid();
  }
}
