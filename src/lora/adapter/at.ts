/** Where in a model something failed. */
import { LowrankError } from "../../errors.js";

/** Runs `fn`; an error of this package is told with what was done and the path of the layer. */
export function at<T>(where: string, path: string, fn: () => T): T {
  try {
    return fn();
  } catch (cause) {
    if (!(cause instanceof LowrankError)) throw cause;
    throw new LowrankError(cause.code, `${where}: ${path || "the model"}: ${cause.message}`, { cause });
  }
}
