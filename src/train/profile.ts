/** Profiles a run: a trace for Perfetto, and the totals of each operation. */
import { synchronize, type Device } from "../device/device.js";
import { call, native, session, unwrapResult } from "../native/binding.js";
import type { OperationProfile, ProfileEvent } from "./events.js";

type Settled = Exclude<Device, "auto">;

/** A profile of the work that is recorded on a device between `start` and `finish`. */
export class Profile {
  readonly #path: string;
  readonly #file: InstanceType<ReturnType<typeof native>["TraceFile"]>;
  #device: Settled | undefined;
  #startTime = 0;

  /** Opens a staging file next to `path`. Throws `ERR_WRITE`. */
  constructor(path: string) {
    this.#path = path;
    this.#file = call(() => native().TraceFile.create(path));
  }

  /** Starts the trace, and measures the device's peak rates. */
  start(device: Settled): void {
    session().startTrace(this.#file, device);
    this.#device = device;
    this.#startTime = performance.now();
  }

  /** Waits for the recorded work and moves the trace to its path. */
  async finish(): Promise<ProfileEvent | undefined> {
    const device = this.#device;
    if (device === undefined) return undefined;
    await synchronize(device);
    const seconds = (performance.now() - this.#startTime) / 1000;
    const summary = unwrapResult(await session().finishTrace(this.#file, device));
    this.#device = undefined;
    const operations: OperationProfile[] = summary.totals.map(({ pass, ...total }) => ({
      ...total,
      pass: pass as OperationProfile["pass"],
    }));
    const { flopsPerSecond, bytesPerSecond, leftOut } = summary;
    return {
      type: "profile",
      path: this.#path,
      seconds,
      flopsPerSecond,
      bytesPerSecond,
      leftOut,
      operations,
    };
  }

  /** Ends an unfinished profile without a file. */
  discard(): void {
    if (this.#device !== undefined) session().stopTrace(this.#device);
    this.#file.discard();
  }
}
