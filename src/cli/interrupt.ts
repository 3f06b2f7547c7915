/** Ctrl-C: the first asks the command to end well, the second ends it at once. */
import { Interrupted, INTERRUPTED } from "./failure.js";

/** Calls `ask` at the first interrupt. `release()` takes the listeners off again. */
export function onInterrupt(ask: () => void): { readonly asked: boolean; release(): void } {
  let asked = false;
  const listener = (): void => {
    if (asked) process.exit(INTERRUPTED);
    asked = true;
    ask();
  };
  process.on("SIGINT", listener);
  process.on("SIGTERM", listener);
  return {
    get asked() {
      return asked;
    },
    release: () => {
      process.off("SIGINT", listener);
      process.off("SIGTERM", listener);
    },
  };
}

/** Runs a command with a signal that an interrupt aborts. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = onInterrupt(() => controller.abort(new Interrupted("interrupted")));
  try {
    return await work(controller.signal);
  } finally {
    interrupt.release();
  }
}
