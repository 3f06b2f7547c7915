/** Freeing what a layer gives up, which waits while a change may yet be taken back. */

/** A tensor, or a module with all of its own. */
interface Held {
  dispose(): void;
}

let waiting: Set<Held> | undefined;

/** Frees what a layer or a model held: at once, or when the change that took it out has succeeded. */
export function release(held: Held | null | undefined): void {
  if (!held) return;
  if (waiting === undefined) held.dispose();
  else waiting.add(held);
}

/** Runs `step`; what it releases is freed when it has returned. Where it throws, `undo` is given what `note` gave. */
export function postpone<S, T>(note: () => S, step: () => T, undo: (noted: S) => void): T {
  if (waiting !== undefined) return step();
  const noted = note();
  waiting = new Set();
  let released: Set<Held>;
  let result: T;
  try {
    result = step();
  } catch (error) {
    waiting = undefined;
    undo(noted);
    throw error;
  } finally {
    released = waiting ?? new Set();
    waiting = undefined;
  }
  for (const held of released) held.dispose();
  return result;
}
