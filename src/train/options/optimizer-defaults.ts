/** The names and defaults of the optimizers of `finetune`. Without imports, so that --help stays fast. */

/** The values of the option `optimizer.type`. */
export const OPTIMIZER_TYPES = ["adamw", "adam", "sgd", "adafactor", "lion"] as const;

/** An optimizer of `finetune`. */
export type OptimizerType = (typeof OPTIMIZER_TYPES)[number];

/** The optimizer of a run; options that its type does not have are undefined. */
export interface OptimizerSettings {
  type: OptimizerType;
  lr: number;
  betas: readonly [number, number] | undefined;
  eps: number | undefined;
  momentum: number | undefined;
  weightDecay: number;
}

/** The defaults of each type. Adafactor's learning rate is relative to the size of a parameter. */
export const OPTIMIZER_DEFAULTS = {
  adamw: { lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8, momentum: undefined },
  adam: { lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8, momentum: undefined },
  sgd: { lr: 1e-2, betas: undefined, eps: undefined, momentum: 0.9 },
  adafactor: { lr: 1e-2, betas: undefined, eps: undefined, momentum: undefined },
  lion: { lr: 2e-5, betas: [0.9, 0.99], eps: undefined, momentum: undefined },
} as const satisfies Record<OptimizerType, Omit<OptimizerSettings, "type" | "weightDecay">>;
