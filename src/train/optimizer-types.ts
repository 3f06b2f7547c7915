/** The optimizers that `finetune` trains with, by name. */
import type { Tensor } from "../tensor.js";
import { Adafactor, Adam, AdamW, Lion, type Optimizer, type ParameterGroup } from "../optim/index.js";
import type { RuleOptions } from "../optim/index.js";

/** Names of the optimizers, as the option `optimizer.type` takes them. */
export const OPTIMIZER_TYPES = ["adamw", "adam", "lion", "adafactor"] as const;

/** An optimizer of `finetune`. */
export type OptimizerType = (typeof OPTIMIZER_TYPES)[number];

/** The optimizer of a run with its options; those that the type lacks are undefined. */
export interface OptimizerSettings {
  type: OptimizerType;
  lr: number;
  betas: readonly [number, number] | undefined;
  eps: number | undefined;
  weightDecay: number;
}

/** What each type has unless it is given. Adafactor's rate is relative to the size of a parameter. */
export const OPTIMIZER_DEFAULTS = {
  adamw: { lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8 },
  adam: { lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8 },
  lion: { lr: 2e-5, betas: [0.9, 0.99], eps: undefined },
  adafactor: { lr: 1e-2, betas: undefined, eps: undefined },
} as const satisfies Record<OptimizerType, Omit<OptimizerSettings, "type" | "weightDecay">>;

/** The optimizer over tensors, or over groups of them with separate rates. */
export function createOptimizer(
  params: Iterable<Tensor> | Iterable<ParameterGroup<RuleOptions>>,
  { type, ...options }: OptimizerSettings,
): Optimizer {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const of = { adamw: AdamW, adam: Adam, lion: Lion, adafactor: Adafactor }[type];
  return new of(params as Iterable<Tensor>, given) as unknown as Optimizer;
}
