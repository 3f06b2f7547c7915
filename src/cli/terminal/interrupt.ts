/** Handles Ctrl-C and similar signals: the first asks the command to finish cleanly, the second ends it at once. */
import { Interrupted, readExitStatus, type EndingSignal } from "./failure.js";

/** Signals of Ctrl-C, `kill`, and a closed terminal. */
const SIGNALS: readonly EndingSignal[] = ["SIGINT", "SIGTERM", "SIGHUP"];
/** Also the signal that schedulers send before a time limit, and that `mpirun` forwards without ending its ranks. */
const LAUNCHED_SIGNALS: readonly EndingSignal[] = [...SIGNALS, "SIGUSR2"];

export interface Interrupt {
  /** The first signal received. */
  readonly asked: EndingSignal | undefined;
  /** Removes the listeners. */
  release(): void;
}

/** Calls `ask` at the first signal. `launched`: whether a launcher such as `mpirun` started this process. */
export function watchSignals(
  ask: (signal: EndingSignal) => void,
  { launched = false }: { launched?: boolean } = {},
): Interrupt {
  const signals = launched ? LAUNCHED_SIGNALS : SIGNALS;
  let received: EndingSignal | undefined;
  const listener = (signal: NodeJS.Signals): void => {
    if (received !== undefined) process.exit(readExitStatus(received));
    received = signal as EndingSignal;
    ask(received);
  };
  for (const signal of signals) process.on(signal, listener);
  return {
    get asked() {
      return received;
    },
    release: () => {
      for (const signal of signals) process.off(signal, listener);
    },
  };
}

/** Runs a command with an `AbortSignal` that an interrupt aborts. */
export async function runInterruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = watchSignals((signal) => controller.abort(new Interrupted(signal)));
  try {
    return await work(controller.signal);
  } finally {
    interrupt.release();
  }
}
