/** The library options that the flags of `finetune` set. */
import { FLAGS } from "../options/flags.js";

/** The path of the library option that each flag sets. */
export const PLACES: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  FLAGS.map(({ attribute, path }) => [attribute, path]),
);
