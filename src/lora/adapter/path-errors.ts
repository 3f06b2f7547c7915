/** Adds the location in the model to errors. */
import { LowrankError } from "../../errors.js";

/** Runs `fn` and prefixes errors of this package with `where` and the path of the layer. */
export function addPathToErrors<T>(where: string, path: string, fn: () => T): T {
  try {
    return fn();
  } catch (cause) {
    if (!(cause instanceof LowrankError)) throw cause;
    throw new LowrankError(cause.code, `${where}: ${path || "the model"}: ${cause.message}`, { cause });
  }
}
