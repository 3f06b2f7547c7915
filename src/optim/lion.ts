import { checkKnownOptions } from "../arguments/check.js";
import { Optimizer, type Parameters, type RuleOptions } from "./optimizer.js";

/** The options of `Lion`. */
export interface LionOptions extends RuleOptions {
  /** The learning rate, about a tenth of AdamW's; 1e-4 by default. */
  lr: number;
  /** Decay of the momentum in the update, and in the momentum itself; 0.9 and 0.99 by default. */
  betas: readonly [number, number];
  /** Decoupled: p ← p · (1 − lr · weightDecay); 0 by default. */
  weightDecay: number;
}

/**
 * Lion (Chen et al. 2023): each step is the sign of an interpolated momentum, so that there is one state instead of
 * two.
 */
export class Lion extends Optimizer<LionOptions> {
  /**
   * Takes parameters as `AdamW` does. Throws `ERR_OPTION` for options out of range or unknown, and without parameters.
   */
  constructor(params: Parameters<LionOptions>, given?: Partial<LionOptions>) {
    const chosen = checkKnownOptions("Lion", given, ["lr", "betas", "weightDecay"]);
    const { lr = 1e-4, betas = [0.9, 0.99], weightDecay = 0 } = chosen;
    super("Lion", "lion", ["exp_avg"], params, { lr, betas, weightDecay });
  }
}
