/** Fine-tunes a language model on text, or a classifier on labelled rows. */
import { FinetuneRun } from "./finetune-run.js";
import type { FinetuneOptions } from "../options.js";

/**
 * Trains an adapter for a model on a text or on rows of text, and saves it in PEFT's format. Starts at once.
 *
 * A model given by its path is loaded, and freed at the end. A loaded model is adapted in place: it keeps the adapter
 * if the run completes or is stopped, and is restored if the run fails or is aborted. With `resume` the run continues
 * from a checkpoint and ends with the same bits as an uninterrupted run. `stop()` ends the run after the current step
 * and saves a checkpoint; before training has begun it ends the run at once and saves nothing.
 *
 * Errors (they reject `result`): `ERR_OPTION`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_DATA_ROW` and the errors of
 * `loadModel` and `lora.inject` for invalid input; `ERR_OUTPUT_EXISTS` if another run writes or has written into the
 * output folder, or if the run would overwrite a file that no run wrote; `ERR_WRITE` if something cannot be saved, which
 * leaves earlier saves intact; `ERR_NOT_FINITE`; the signal's reason.
 */
export function finetune(options: FinetuneOptions): FinetuneRun {
  return new FinetuneRun(options);
}
