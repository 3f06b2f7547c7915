import { options as known } from "../argument.js";
import type { FinetuneResult } from "./events.js";
import type { FinetuneOptions } from "./options.js";
import { portOf } from "./port.js";
import { Run } from "./run.js";
import { Watched } from "./watched.js";

/** What `dashboard` takes. */
export interface DashboardOptions {
  /** The port of 127.0.0.1 to listen at; one that is free unless given. */
  port?: number | undefined;
}

/** Where a run's page is. */
export interface DashboardAddress {
  /** Its address; whoever has it sees the run, and may pause or stop it. */
  url: string;
}

/** A fine-tuning that has begun, and a page to watch it by. */
export class FinetuneRun extends Run<FinetuneResult> {
  readonly #watched: Watched;

  /** @internal See `finetune`. */
  constructor(options: FinetuneOptions) {
    const watched = new Watched();
    super(async (context) => (await import("./finetuning.js")).finetuneNow(options, context, watched));
    this.#watched = watched;
    watched.stop = () => void this.stop().catch(() => {});
    watched.pause = () => void this.pause();
    watched.resume = () => void this.resume();
  }

  /**
   * Serves a page about this run on this machine (docs/dashboard.md), until the process ends, which it holds open no
   * longer. Gives its address; whoever has that sees the run, and may pause or stop it. Asked again it gives the same one, whatever
   * `port` says then.
   *
   * Errors: `ERR_OPTION` for a port that cannot be had.
   */
  async dashboard(options?: DashboardOptions): Promise<DashboardAddress> {
    const { port = 0 } = known("dashboard", options, ["port"]);
    const { url } = await this.#watched.open(portOf("dashboard", "port", port));
    return { url };
  }
}
