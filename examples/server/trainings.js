// A queue of runs: one trains at a time, in a worker.
import { Worker } from "node:worker_threads";

import { connect } from "lowrank/electron";

export class Trainings {
  /** The state of each user's last run. */
  states = new Map();
  #waiting = [];
  #run;
  #working = Promise.resolve();
  #worker;
  #client;
  #closed = false;

  /** `done` is called with the user and the adapter's folder. */
  constructor(done) {
    this.done = done;
  }

  /** Appends a run to the queue; `options` are options of `finetune`. */
  add(user, options) {
    this.states.set(user, { state: "waiting", ahead: this.#waiting.length + (this.#run ? 1 : 0) });
    this.#waiting.push({ user, options });
    this.#working = this.#working.then(() => this.#next());
  }

  async #next() {
    const { user, options } = this.#waiting.shift();
    if (this.#closed) return;
    try {
      this.#run = this.#trainer().finetune(options);
      for await (const event of this.#run) {
        if (event.type !== "step") continue;
        const { step, steps, loss } = event;
        this.states.set(user, { state: "training", step, steps, loss });
      }
      const { adapter, loss, stopped } = await this.#run.result;
      if (!stopped) await this.done(user, adapter);
      this.states.set(user, { state: stopped ? "stopped" : "ready", loss });
    } catch (error) {
      // The next run starts a new worker after this one has died.
      if (error.code === "ERR_DISCONNECTED") this.#client = undefined;
      this.states.set(user, { state: "failed", code: error.code, message: error.message });
    } finally {
      this.#run = undefined;
    }
  }

  #trainer() {
    if (this.#client === undefined) {
      this.#worker = new Worker(new URL("trainer.js", import.meta.url));
      // The client already reports an error that ends the worker.
      this.#worker.on("error", () => {});
      this.#client = connect(this.#worker);
    }
    return this.#client;
  }

  /** Stops the training run with a checkpoint, and discards the waiting ones. */
  async close() {
    this.#closed = true;
    await this.#run?.stop().catch(() => {});
    await this.#working;
    await this.#worker?.terminate();
  }
}
