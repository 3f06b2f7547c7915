/** Fine-tuning a language model on a file of text, or a classifier on rows with labels. */
import type { FinetuneResult } from "./events.js";
import type { FinetuneOptions } from "./options.js";
import { Run } from "./run.js";

/**
 * Trains an adapter for a model on a text or on rows of text, and saves it as PEFT does. Starts at once.
 *
 * A model given by its path is loaded, and freed at the end; one that is given loaded is adapted in place, keeps the
 * adapter when the run ends well or is stopped, and is as it was when it fails or is aborted. With `resume` the run
 * goes on from a checkpoint and ends with the same bits as one that was never interrupted.
 */
export function finetune(options: FinetuneOptions): Run<FinetuneResult> {
  return new Run(async (context) => (await import("./finetuning.js")).finetuneNow(options, context));
}
