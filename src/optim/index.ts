export { AdamW, type AdamWOptions } from "./adamw.js";
export { clipGradNorm } from "./clip.js";
export { LoraFA } from "./lora-fa.js";
export { loraPlusGroups, type LoraPlusOptions } from "./lora-plus.js";
export {
  Optimizer,
  type HeldGroup,
  type OptimizerState,
  type ParameterGroup,
  type Parameters,
  type ParameterState,
  type RuleOptions,
} from "./optimizer.js";
export * as schedule from "./schedule.js";
export { SGD, type SGDOptions } from "./sgd.js";
