/** What is loaded when it is first called, so that importing the package stays quick. */

/** The asynchronous function that `load` gives; it may be called before its module is there. */
export function lazy<F extends (...args: never[]) => Promise<unknown>>(load: () => Promise<F>): F {
  const called = async (...args: Parameters<F>): Promise<unknown> => (await load())(...args);
  return called as F;
}
