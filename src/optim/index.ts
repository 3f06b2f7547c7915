export { Adafactor, type AdafactorOptions } from "./adafactor.js";
export { Adam, type AdamOptions } from "./adam.js";
export { AdamW, type AdamWOptions } from "./adamw.js";
export { clipGradNorm } from "./clip.js";
export { Lion, type LionOptions } from "./lion.js";
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
  type StateShapes,
} from "./optimizer.js";
export * as schedule from "./schedule.js";
export { SGD, type SGDOptions } from "./sgd.js";
