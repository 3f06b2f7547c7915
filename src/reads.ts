/** What is read along with the next value that is awaited. */

const waiting = new Set<() => Promise<void>>();

/** Has `read` called with the next read, which then awaits it, too; gives what calls that off. */
export function beforeReads(read: () => Promise<void>): () => void {
  waiting.add(read);
  return () => void waiting.delete(read);
}

/** Begins what waits to be read; undefined where nothing does. */
export function readAlong(): Promise<unknown> | undefined {
  if (waiting.size === 0) return undefined;
  const reads = [...waiting];
  waiting.clear();
  // What a device failed by is told by the read that they go with.
  return Promise.all(reads.map((read) => read().catch(() => {})));
}
