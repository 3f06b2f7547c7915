/** The dashboard of a run, opened by the option `dashboard` or by `run.dashboard()`. */
import type { Dashboard } from "../dashboard/server.js";
import type { PauseControls } from "../dashboard/sources.js";
import type { RunRanks } from "./ranks/run-ranks.js";
import type { RunRecorder } from "./recorder.js";
import type { RunContext } from "./run.js";

export class Watched implements PauseControls {
  /** Records the run; set when it begins. */
  recorder: RunRecorder | undefined;
  /** Controls of the run, which the page uses. */
  stop: () => void = () => {};
  pause: () => void = () => {};
  resume: () => void = () => {};
  /** The title of the page. */
  title = "lowrank";
  #dashboard: Promise<Dashboard> | undefined;

  /** Whether a dashboard is open, so that generating texts is worthwhile. */
  get on(): boolean {
    return this.#dashboard !== undefined;
  }

  /** Opens the run's only dashboard, or returns it. Throws `ERR_OPTION` if the port is not available; a later call retries. */
  async open(port: number): Promise<Dashboard> {
    const opening = (this.#dashboard ??= this.#openDashboard(port));
    try {
      return await opening;
    } catch (error) {
      if (this.#dashboard === opening) this.#dashboard = undefined;
      throw error;
    }
  }

  /** Resolves when the open pages have received all events. */
  async waitForPages(): Promise<void> {
    await (await this.#dashboard?.catch(() => undefined))?.waitForPages();
  }

  async #openDashboard(port: number): Promise<Dashboard> {
    const { Dashboard } = await import("../dashboard/server.js");
    const { openLiveSource } = await import("../dashboard/sources.js");
    const source = openLiveSource(
      () => this.title,
      () => this.recorder?.path,
      () => this.stop(),
      this,
    );
    return Dashboard.open(source, { port, holds: false });
  }
}

/** The context of a run with its recorder and its dashboard. */
export interface RecordedContext extends RunContext {
  recorder: RunRecorder;
  watched: Watched;
  /** The processes that train the same adapter; undefined for one. */
  ranks?: RunRanks | undefined;
  /** Returns milliseconds on a monotonic clock; `performance.now` by default. For tests. */
  now?: (() => number) | undefined;
}
