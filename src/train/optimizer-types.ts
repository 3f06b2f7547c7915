/** Creates the optimizers of `finetune`. */
import type { Tensor } from "../tensor/tensor.js";
import { Adafactor, Adam, AdamW, Lion, SGD, type Optimizer, type ParameterGroup } from "../optim/index.js";
import type { RuleOptions } from "../optim/index.js";
import type { OptimizerSettings } from "./options/optimizer-defaults.js";

/** Creates the optimizer over tensors, or over parameter groups with separate learning rates. */
export function createOptimizer(
  params: Iterable<Tensor> | Iterable<ParameterGroup<RuleOptions>>,
  { type, ...options }: OptimizerSettings,
): Optimizer {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const Type = { adamw: AdamW, adam: Adam, sgd: SGD, adafactor: Adafactor, lion: Lion }[type];
  return new Type(params as Iterable<Tensor>, given) as unknown as Optimizer;
}
