/** Defers freeing replaced tensors and modules while a change may still be undone. */

/** A tensor, or a module and its tensors. */
interface Releasable {
  dispose(): void;
}

let waiting: Set<Releasable> | undefined;

/** Frees an object that a layer or a model no longer uses: at once, or after the current change has succeeded. */
export function release(resource: Releasable | null | undefined): void {
  if (!resource) return;
  if (waiting === undefined) resource.dispose();
  else waiting.add(resource);
}

/** Runs `step` and frees the objects that it released once it returns. If it throws, calls `undo` with the result of `note`. */
export function postpone<S, T>(note: () => S, step: () => T, undo: (state: S) => void): T {
  if (waiting !== undefined) return step();
  const state = note();
  waiting = new Set();
  let released: Set<Releasable>;
  let result: T;
  try {
    result = step();
  } catch (error) {
    waiting = undefined;
    undo(state);
    throw error;
  } finally {
    released = waiting ?? new Set();
    waiting = undefined;
  }
  for (const resource of released) resource.dispose();
  return result;
}
