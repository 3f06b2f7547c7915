/** Lets timers and whatever else waits have their turn. */
export function breath(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
