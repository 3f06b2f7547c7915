/**
 * Locks by the thread that holds them. A worker that is terminated leaves its lock in a process that goes on, without a
 * word; so a thread is asked, and one that is alive answers.
 */
import { BroadcastChannel } from "node:worker_threads";

/** What a thread asks, or answers. */
interface Said {
  kind: "ask" | "held";
  token: string;
}

/** Milliseconds without an answer after which nobody holds a lock; no run keeps its event loop this long. */
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

/** This thread holds the lock of this token, and answers for it. */
export function hold(token: string): void {
  held.add(token);
  channel();
}

export function letGo(token: string): void {
  held.delete(token);
}

/** Whether a thread of this process that lives holds the lock. */
export async function isHeld(token: string): Promise<boolean> {
  if (held.has(token)) return true;
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
