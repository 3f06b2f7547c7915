import type { Device } from "../device/device.js";
import { session } from "../native/binding.js";

let tokens = 0;

/** Device work that is skipped after an abort, even if it is recorded already. */
export class CancelScope {
  readonly #token = ++tokens;
  readonly #device: Exclude<Device, "auto">;
  readonly #signal: AbortSignal | undefined;
  readonly #cancel = (): void => session().cancel(this.#token);

  constructor(device: Exclude<Device, "auto">, signal: AbortSignal | undefined) {
    this.#device = device;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#cancel, { once: true });
  }

  /** Runs the synchronous `fn`. The work that it records is skipped once the signal aborts. */
  run<T>(fn: () => T): T {
    if (this.#signal === undefined) return fn();
    session().under(this.#device, this.#token);
    try {
      return fn();
    } finally {
      session().under(this.#device, 0);
    }
  }

  release(): void {
    this.#signal?.removeEventListener("abort", this.#cancel);
    session().releaseCancel(this.#token);
  }
}
