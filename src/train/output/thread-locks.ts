/**
 * Locks by the thread that holds them. A terminated worker leaves its lock in a process that continues, and a busy thread
 * cannot answer questions; the engine therefore tracks the locks, independently of threads. Another copy of the package in
 * the same process tracks its own: its threads are asked by message, and a live one answers.
 */
import { BroadcastChannel } from "node:worker_threads";

import { session } from "../../native/binding.js";

/** A message between threads: a question or an answer. */
interface Said {
  kind: "ask" | "held";
  token: string;
}

/** Milliseconds without an answer after which a lock of another copy counts as abandoned. */
const PATIENCE = 5000;

const tokens = new Set<string>();
/** Callbacks that wait for an answer, by token. */
const waiting = new Map<string, () => void>();
let open: BroadcastChannel | undefined;

function openChannel(): BroadcastChannel {
  if (open !== undefined) return open;
  const created = new BroadcastChannel("lowrank run.lock");
  created.addEventListener("message", (event) => {
    const { kind, token } = (event as Event & { data: Said }).data;
    if (kind === "held") waiting.get(token)?.();
    else if (tokens.has(token)) created.postMessage({ kind: "held", token } satisfies Said);
  });
  created.unref();
  return (open = created);
}

/** Records that this thread holds the lock of a token. Returns the copy of the engine that tracks it. */
export function hold(token: string): string {
  session().hold(token);
  tokens.add(token);
  openChannel();
  return session().copyOfLibrary();
}

export function releaseToken(token: string): void {
  tokens.delete(token);
  session().letGo(token);
}

/** Whether a live thread of this process holds the lock, which `copy` tracks. */
export async function isHeld(token: string, copy: string | undefined): Promise<boolean> {
  if (copy === session().copyOfLibrary()) return session().isHeld(token);
  return new Promise((resolve) => {
    const settle = (answer: boolean): void => {
      clearTimeout(timer);
      waiting.delete(token);
      resolve(answer);
    };
    const timer = setTimeout(() => settle(false), PATIENCE);
    waiting.set(token, () => settle(true));
    openChannel().postMessage({ kind: "ask", token } satisfies Said);
  });
}
