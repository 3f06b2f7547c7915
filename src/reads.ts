/** What is read along with the next value that is awaited. */
import { session, settled } from "./native.js";

/** A reading that has begun: of a tensor of the session, by its number, which is freed; or one that sees to itself. */
export type Begun = { of: number; heard: (bytes: Uint8Array | undefined) => void } | Promise<unknown>;

const waiting = new Set<() => Begun | undefined>();

/** Has `begin` called with the next read, which then awaits that reading, too; gives what calls it off. */
export function beforeReads(begin: () => Begun | undefined): () => void {
  waiting.add(begin);
  return () => void waiting.delete(begin);
}

/** What a tensor holds, by its number, once it and what waits to be read have been read: in one answer. */
export async function read(id: number): Promise<Uint8Array> {
  if (waiting.size === 0) return settled((await session().read(id)) as Uint8Array);
  return settled((await readAll(id))[0] as Uint8Array);
}

/** Reads what waits to be read; undefined where nothing does. */
export function readAlong(): Promise<unknown> | undefined {
  return waiting.size === 0 ? undefined : readAll();
}

async function readAll(...ids: number[]): Promise<unknown[]> {
  const begun = [...waiting].map((begin) => begin()).filter((one) => one !== undefined);
  waiting.clear();
  const others = begun.filter((one) => one instanceof Promise);
  const ours = begun.filter((one): one is Exclude<Begun, Promise<unknown>> => !(one instanceof Promise));
  const of = ours.map((one) => one.of);
  let all: unknown[] = [];
  try {
    const read = ids.length + of.length > 0 ? session().readAll(Uint32Array.from([...ids, ...of])) : [];
    session().dispose(Uint32Array.from(of));
    all = await read;
  } finally {
    // Also where nothing could be read: who waits for this reading goes on. What a device failed by is told by the
    // value that it goes with.
    for (const [i, { heard }] of ours.entries()) {
      const bytes = all[ids.length + i];
      heard(bytes instanceof Uint8Array ? bytes : undefined);
    }
  }
  await Promise.all(others.map((one) => one.catch(() => {})));
  return all;
}
