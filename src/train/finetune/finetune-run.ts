import { checkKnownOptions } from "../../arguments/check.js";
import type { FinetuneResult } from "../events.js";
import type { FinetuneOptions } from "../options.js";
import { checkPort } from "../port.js";
import { Run } from "../run.js";
import { Watched } from "../watched.js";

/** The options of `FinetuneRun.dashboard`. */
export interface DashboardOptions {
  /** The port to listen at on 127.0.0.1; a free port by default. */
  port?: number | undefined;
}

/** The address of a run's dashboard. */
export interface DashboardAddress {
  /** The page's address. Anyone who has it can watch, pause and stop the run. */
  url: string;
}

/** A running fine-tuning, with an optional dashboard. */
export class FinetuneRun extends Run<FinetuneResult> {
  readonly #watched: Watched;

  /** @internal See `finetune`. */
  constructor(options: FinetuneOptions) {
    const watched = new Watched();
    super(async (context) => (await import("./finetuning.js")).runFinetune(options, context, watched));
    this.#watched = watched;
    watched.stop = () => void this.stop().catch(() => {});
    watched.pause = () => void this.pause();
    watched.resume = () => void this.resume();
  }

  /**
   * Serves a page about this run on this machine until the process ends, and returns its address; see docs/dashboard.md.
   * The page does not keep the process alive. Anyone who has the address can watch, pause and stop the run. Later calls
   * return the same address and ignore `port`.
   *
   * Errors: `ERR_OPTION` for a port that is not available.
   */
  async dashboard(options?: DashboardOptions): Promise<DashboardAddress> {
    const { port = 0 } = checkKnownOptions("dashboard", options, ["port"]);
    const { url } = await this.#watched.open(checkPort("dashboard", "port", port));
    return { url };
  }
}
