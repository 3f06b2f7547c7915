import { Optimizer, type Parameters, type RuleOptions } from "./optimizer.js";

export interface AdamWOptions extends RuleOptions {
  lr: number;
  betas: readonly [number, number];
  eps: number;
  /** Decoupled: p ← p · (1 − lr · weightDecay). */
  weightDecay: number;
}

/** Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`. */
export class AdamW extends Optimizer<AdamWOptions> {
  /** Throws `ERR_OPTION` for options out of range, and when there are no parameters. */
  constructor(
    params: Parameters<AdamWOptions>,
    { lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 }: Partial<AdamWOptions> = {},
  ) {
    super("adamw", ["exp_avg", "exp_avg_sq"], params, { lr, betas, eps, weightDecay });
  }
}
