/** The file `run.json` in an output folder and in each of its checkpoints. */

/** The name of the file, in an output folder and in a checkpoint. */
export const RUN = "run.json";
/** The version of the file's format. */
export const VERSION = 2;
