import { checkKnownOptions } from "../arguments/check.js";
import { Optimizer, type Parameters, type RuleOptions } from "./optimizer.js";

/** The options of `Adam`. */
export interface AdamOptions extends RuleOptions {
  /** The learning rate; 1e-3 by default. */
  lr: number;
  /** Decay of the running means of gradients and of their squares; 0.9 and 0.999 by default. */
  betas: readonly [number, number];
  /** Added to the denominator; 1e-8 by default. */
  eps: number;
  /** Added to the gradient: weightDecay · p (L2 regularisation); 0 by default. `AdamW` decays parameters directly. */
  weightDecay: number;
}

/** Adam (Kingma and Ba 2015), as `torch.optim.Adam`: weight decay is added to the gradient. */
export class Adam extends Optimizer<AdamOptions> {
  /**
   * Takes parameters as `AdamW` does. Throws `ERR_OPTION` for options out of range or unknown, and without parameters.
   */
  constructor(params: Parameters<AdamOptions>, given?: Partial<AdamOptions>) {
    const chosen = checkKnownOptions("Adam", given, ["lr", "betas", "eps", "weightDecay"]);
    const { lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0 } = chosen;
    super("Adam", "adam", ["exp_avg", "exp_avg_sq"], params, { lr, betas, eps, weightDecay });
  }
}
