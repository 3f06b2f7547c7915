import { checkKnownOptions } from "../arguments/check.js";
import { Optimizer, type Parameters, type RuleOptions } from "./optimizer.js";

/** The options of `AdamW`. */
export interface AdamWOptions extends RuleOptions {
  /** The learning rate; 1e-3 by default. */
  lr: number;
  /** Decay of the running means of gradients and of their squares; 0.9 and 0.999 by default. */
  betas: readonly [number, number];
  /** Added to the denominator; 1e-8 by default. */
  eps: number;
  /** Decoupled: p ← p · (1 − lr · weightDecay); 0.01 by default. */
  weightDecay: number;
}

/** Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`. */
export class AdamW extends Optimizer<AdamWOptions> {
  /**
   * `params` are tensors, or groups with separate options: `{ params, lr, … }`. Throws `ERR_OPTION` for options that are out of
   * range or unknown, and if there are no parameters.
   */
  constructor(params: Parameters<AdamWOptions>, given?: Partial<AdamWOptions>) {
    const chosen = checkKnownOptions("AdamW", given, ["lr", "betas", "eps", "weightDecay"]);
    const { lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 } = chosen;
    super("AdamW", "adamw", ["exp_avg", "exp_avg_sq"], params, { lr, betas, eps, weightDecay });
  }
}
