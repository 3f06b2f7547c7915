/** `run.json`, which an output folder has, and each checkpoint in it. */

/** Its name, in an output folder and in a checkpoint. */
export const RUN = "run.json";
/** Of what is written. */
export const VERSION = 2;
