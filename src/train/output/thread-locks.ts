/**
 * Locks by the thread that holds them. A worker that is terminated leaves its lock in a process that goes on, without a
 * word, and one that is busy answers nobody; so the engine keeps account of them, beside all threads. Another copy of the
 * package in the same process has an account of its own: its threads are asked, and one that is alive answers.
 */
import { BroadcastChannel } from "node:worker_threads";

import { session } from "../../native.js";

/** What a thread asks, or answers. */
interface Said {
  kind: "ask" | "held";
  token: string;
}

/** Milliseconds without an answer after which no thread of another copy is taken to hold a lock. */
const PATIENCE = 5000;

const held = new Set<string>();
/** Who waits for an answer, by token. */
const waiting = new Map<string, () => void>();
let open: BroadcastChannel | undefined;

function channel(): BroadcastChannel {
  if (open !== undefined) return open;
  const made = new BroadcastChannel("lowrank run.lock");
  made.addEventListener("message", (event) => {
    const { kind, token } = (event as Event & { data: Said }).data;
    if (kind === "held") waiting.get(token)?.();
    else if (held.has(token)) made.postMessage({ kind: "held", token } satisfies Said);
  });
  made.unref();
  return (open = made);
}

/** This thread holds the lock of this token, and answers for it. Gives which copy of the engine keeps account of it. */
export function hold(token: string): string {
  session().hold(token);
  held.add(token);
  channel();
  return session().copyOfLibrary();
}

export function letGo(token: string): void {
  held.delete(token);
  session().letGo(token);
}

/** Whether a thread of this process that lives holds the lock, of which `copy` keeps account. */
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
    channel().postMessage({ kind: "ask", token } satisfies Said);
  });
}
