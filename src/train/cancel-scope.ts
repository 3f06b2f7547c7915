import type { Device } from "../device/device.js";
import { session } from "../native/binding.js";

let tokens = 0;

/** Work of devices that is skipped after an abort, even if it is recorded already. */
export class CancelScope {
  readonly #token = ++tokens;
  readonly #devices: readonly Exclude<Device, "auto">[];
  readonly #signal: AbortSignal | undefined;
  readonly #cancel = (): void => session().cancel(this.#token);

  constructor(devices: readonly Exclude<Device, "auto">[], signal: AbortSignal | undefined) {
    this.#devices = devices;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#cancel, { once: true });
  }

  /** Runs the synchronous `fn`. The work that it records is skipped once the signal aborts. */
  run<T>(fn: () => T): T {
    if (this.#signal === undefined) return fn();
    for (const device of this.#devices) session().under(device, this.#token);
    try {
      return fn();
    } finally {
      for (const device of this.#devices) session().under(device, 0);
    }
  }

  release(): void {
    this.#signal?.removeEventListener("abort", this.#cancel);
    session().releaseCancel(this.#token);
  }
}
