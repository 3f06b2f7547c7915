/** The options of `finetune`. */
import type { OptionsOf } from "./options/entry.js";
import type { FloatDType } from "../tensor/tensor.js";
import type { SCHEDULES } from "./options/learning.js";
import type { OPTIONS } from "./options/table.js";

/** The schedule of the learning rate after the warm-up: a linear or cosine decay to 0, or a constant rate. */
export type ScheduleName = (typeof SCHEDULES)[number];
/** The storage types of weights. */
export type StorageType = FloatDType;

/**
 * The options of `finetune`. Each description ends with the default or names it. A resumed run uses its recorded values
 * instead of the defaults.
 */
export interface FinetuneOptions extends OptionsOf<typeof OPTIONS> {}
