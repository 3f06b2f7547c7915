/** Batches deferred reads with the next awaited read. */
import { session, unwrapResult } from "./binding.js";

/** A started read: of the tensor with this id, which is then freed; or a promise that needs no help. */
export type StartedRead =
  { id: number; handleRead: (bytes: Uint8Array | undefined) => void } | Promise<unknown>;

const waiting = new Set<() => StartedRead | undefined>();

/** Registers `begin` to be called at the next read, which then also awaits it. Returns a function that cancels this. */
export function registerRead(begin: () => StartedRead | undefined): () => void {
  waiting.add(begin);
  return () => void waiting.delete(begin);
}

/** Reads a tensor's bytes by its id, together with all deferred reads, in one round trip. */
export async function readTensor(id: number): Promise<Uint8Array> {
  if (waiting.size === 0) return unwrapResult((await session().read(id)) as Uint8Array);
  return unwrapResult((await readAll(id))[0] as Uint8Array);
}

/** Performs the deferred reads; undefined if there are none. */
export function readAlong(): Promise<unknown> | undefined {
  return waiting.size === 0 ? undefined : readAll();
}

async function readAll(...ids: number[]): Promise<unknown[]> {
  const startedReads = [...waiting].map((begin) => begin()).filter((started) => started !== undefined);
  waiting.clear();
  const others = startedReads.filter((started) => started instanceof Promise);
  const ours = startedReads.filter(
    (started): started is Exclude<StartedRead, Promise<unknown>> => !(started instanceof Promise),
  );
  const startedIds = ours.map((started) => started.id);
  let all: unknown[] = [];
  try {
    const read =
      ids.length + startedIds.length > 0 ? session().readAll(Uint32Array.from([...ids, ...startedIds])) : [];
    session().dispose(Uint32Array.from(startedIds));
    all = await read;
  } finally {
    // Also runs after an error, so that everyone who awaits a deferred read continues. The error itself is reported by the
    // read that was awaited.
    for (const [i, { handleRead }] of ours.entries()) {
      const bytes = all[ids.length + i];
      handleRead(bytes instanceof Uint8Array ? bytes : undefined);
    }
  }
  await Promise.all(others.map((promise) => promise.catch(() => {})));
  return all;
}
