/** Loads modules at the first call, so that importing the package is fast. */

/** Returns an asynchronous function that first loads its implementation with `load`. */
export function loadLazily<F extends (...args: never[]) => Promise<unknown>>(load: () => Promise<F>): F {
  const callLoaded = async (...args: Parameters<F>): Promise<unknown> => (await load())(...args);
  return callLoaded as F;
}
