/** Fine-tuning a language model on a file of text, or a classifier on rows with labels. */
import { FinetuneRun } from "./finetune-run.js";
import type { FinetuneOptions } from "./options.js";

/**
 * Trains an adapter for a model on a text or on rows of text, and saves it as PEFT does. Starts at once.
 *
 * A model given by its path is loaded, and freed at the end; one that is given loaded is adapted in place, keeps the
 * adapter when the run ends well or is stopped, and is as it was when it fails or is aborted. With `resume` the run
 * goes on from a checkpoint and ends with the same bits as one that was never interrupted. `stop()` ends it after the
 * step, with a checkpoint; before training has begun it ends it at once, and nothing is saved.
 *
 * Errors (they reject `result`): `ERR_OPTION`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_DATA_ROW` and those of
 * `loadModel` and `lora.inject` for what it is given; `ERR_OUTPUT_EXISTS` where another run writes into the output folder,
 * or has, or where a file is in the way that no run wrote; `ERR_WRITE` where something cannot be saved, which leaves what
 * was saved before; `ERR_NOT_FINITE`; the signal's reason.
 */
export function finetune(options: FinetuneOptions): FinetuneRun {
  return new FinetuneRun(options);
}
