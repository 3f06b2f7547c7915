/**
 * The table of `finetune`'s options. An entry's comment is its documentation in the library, and each description ends
 * with the default or names it. The type `FinetuneOptions`, the checks, the command line, the schema of config files, the
 * rules of resuming and the page of options are derived from the table, in this order.
 */
import { DATA_OPTIONS } from "./data.js";
import { EXECUTION_OPTIONS } from "./execution.js";
import { LEARNING_OPTIONS } from "./learning.js";
import { STEP_OPTIONS } from "./steps.js";

/** Written out, because the declaration of an inferred type would lose the entries' documentation. */
type Options = typeof DATA_OPTIONS & typeof LEARNING_OPTIONS & typeof STEP_OPTIONS & typeof EXECUTION_OPTIONS;

export const OPTIONS: Options = {
  ...DATA_OPTIONS,
  ...LEARNING_OPTIONS,
  ...STEP_OPTIONS,
  ...EXECUTION_OPTIONS,
};
