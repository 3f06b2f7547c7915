/** What a run is watched by, whoever asks first: its option, or `run.dashboard()`. */
import type { Dashboard } from "../dashboard/server.js";
import type { PauseControls } from "../dashboard/sources.js";
import type { RunRecorder } from "./recorder.js";
import type { RunContext } from "./run.js";

export class Watched implements PauseControls {
  /** What the run is recorded by, once it begins. */
  recorder: RunRecorder | undefined;
  /** Ends the run well, pauses it, continues it. */
  stop: () => void = () => {};
  pause: () => void = () => {};
  resume: () => void = () => {};
  /** What the page is called. */
  title = "lowrank";
  #dashboard: Promise<Dashboard> | undefined;

  /** Whether somebody may be looking, for whom texts are worth generating. */
  get on(): boolean {
    return this.#dashboard !== undefined;
  }

  /** The one dashboard of the run. Throws `ERR_OPTION` where the port cannot be had, and can then be asked again. */
  async open(port: number): Promise<Dashboard> {
    const opening = (this.#dashboard ??= this.#opened(port));
    try {
      return await opening;
    } catch (error) {
      if (this.#dashboard === opening) this.#dashboard = undefined;
      throw error;
    }
  }

  /** Resolves when those who watch know all that was told. */
  async told(): Promise<void> {
    await (await this.#dashboard?.catch(() => undefined))?.caughtUp();
  }

  async #opened(port: number): Promise<Dashboard> {
    const { Dashboard } = await import("../dashboard/server.js");
    const { liveSource } = await import("../dashboard/sources.js");
    const source = liveSource(
      () => this.title,
      () => this.recorder?.path,
      () => this.stop(),
      this,
    );
    return Dashboard.open(source, { port, holds: false });
  }
}

/** What the work of a run is given: what it is recorded and watched by. */
export interface RecordedContext extends RunContext {
  recorder: RunRecorder;
  watched: Watched;
  /** Milliseconds on a monotonic clock, for a test that has its own; `performance.now` by default. */
  now?: (() => number) | undefined;
}
