/** Where a run's time goes: a trace that Perfetto opens, and what each operation came to. */
import { synchronize, type Device } from "../device.js";
import { call, native, session, settled } from "../native.js";
import type { OperationProfile, ProfileEvent } from "./events.js";

type Settled = Exclude<Device, "auto">;

/** A profile of what is recorded on a device between `start` and `finish`. */
export class Profile {
  readonly #path: string;
  readonly #file: InstanceType<ReturnType<typeof native>["TraceFile"]>;
  #device: Settled | undefined;
  #began = 0;

  /** Opens the file beside its place. Throws `ERR_WRITE` where that cannot be. */
  constructor(path: string) {
    this.#path = path;
    this.#file = call(() => native().TraceFile.create(path));
  }

  /** Measures in passing what the device reaches at most. */
  start(device: Settled): void {
    session().startTrace(this.#file, device);
    this.#device = device;
    this.#began = performance.now();
  }

  /** Waits for what was recorded, and puts the file in its place. */
  async finish(): Promise<ProfileEvent | undefined> {
    const device = this.#device;
    if (device === undefined) return undefined;
    await synchronize(device);
    const seconds = (performance.now() - this.#began) / 1000;
    const summary = settled(await session().finishTrace(this.#file, device));
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

  /** Ends it without a file, where it has not been finished. */
  discard(): void {
    if (this.#device !== undefined) session().stopTrace(this.#device);
    this.#file.discard();
  }
}
