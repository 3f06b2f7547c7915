/** The file `run.json` in an output folder and in each of its checkpoints. */

/** The name of the file, in an output folder and in a checkpoint. */
export const RUN = "run.json";
/** The version of the file's format. */
export const VERSION = 2;

/** The hashes of a run's inputs. */
export interface Identities {
  /** The hash of the configuration and the weights. */
  base: string;
  /** Undefined for a model without a tokenizer file. */
  tokenizer?: string | undefined;
  data: string;
  evalData?: string | undefined;
  /** The weights of the adapter that the run started from. */
  adapter?: string | undefined;
  /** The hash of each training file and held-out file, or of rows in memory. */
  sources?: { data: readonly string[]; evalData?: readonly string[] | undefined } | undefined;
}
