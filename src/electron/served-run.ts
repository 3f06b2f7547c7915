/** A run that a client watches. Its events are queued, and merged if there are too many, until the client requests them. */
import type { Priority } from "../device/cpu-use.js";
import type { CheckpointEvent, FinetuneResult, TrainEvent } from "../train/events.js";
import { DEFAULT_PRIORITY } from "../train/default-priority.js";
import type { FinetuneOptions } from "../train/options.js";
import { EventQueue } from "../train/queue.js";
import type { Run } from "../train/run.js";
import { serializeError, type Reply, type Request } from "./protocol.js";

export class ServedRun {
  /** Resolves when the run has ended, with or without an error, and has released its folder. */
  readonly ended: Promise<void>;
  readonly #number: number;
  readonly #queue = new EventQueue<TrainEvent>();
  readonly #aborting = new AbortController();
  readonly #reply: (reply: Reply) => void;
  readonly #finished: () => void;
  #run: Run<FinetuneResult> | undefined;
  #stopping = false;
  /** Pauses requested before the run began. */
  #pauses: number[] = [];
  #watched = true;
  #credit = 0;
  /** Wakes `#send`, which waits for credit. */
  #resumeSending: () => void = () => {};
  /** The newest checkpoint, if the client has not yet confirmed an earlier one. */
  #unsentCheckpoint: CheckpointEvent | undefined;
  #isSendingCheckpoint = false;

  /** Starts the run once `free` has settled, by default at `priority`. Calls `finished` when everything is sent. */
  constructor(
    number: number,
    options: FinetuneOptions,
    priority: Priority,
    free: Promise<unknown>,
    reply: (reply: Reply) => void,
    finished: () => void,
  ) {
    this.#number = number;
    this.#reply = (message) => {
      if (this.#watched) reply(message);
    };
    this.#finished = finished;
    this.ended = this.#train(options, priority, free);
    void this.#send();
  }

  stop(): void {
    this.#stopping = true;
    void this.#run?.stop().catch(() => {});
  }

  /** Discards all further messages, because the client is gone. */
  discardMessages(): void {
    this.#watched = false;
    this.#credit = Infinity;
    this.#resumeSending();
  }

  take(request: Extract<Request, { kind: "pull" | "stop" | "pause" | "resume" | "abort" | "noted" }>): void {
    switch (request.kind) {
      case "pull":
        this.#credit += request.credit;
        this.#resumeSending();
        break;
      case "stop":
        this.stop();
        break;
      case "pause":
        if (this.#run === undefined) this.#pauses.push(request.pause);
        else this.#pause(this.#run, request.pause);
        break;
      case "resume":
        for (const pause of this.#pauses) this.#reply({ kind: "paused", run: this.#number, pause });
        this.#pauses = [];
        void this.#run?.resume();
        break;
      case "abort":
        this.#aborting.abort();
        break;
      case "noted":
        this.#isSendingCheckpoint = false;
        if (this.#unsentCheckpoint !== undefined) this.#sendCheckpoint(this.#unsentCheckpoint);
        break;
    }
  }

  async #train(options: FinetuneOptions, priority: Priority, free: Promise<unknown>): Promise<void> {
    const run = this.#number;
    const { signal } = this.#aborting;
    try {
      await free;
      const { finetune } = await import("../train/finetune/finetune.js");
      const byDefault = { [DEFAULT_PRIORITY]: priority };
      this.#run = finetune({ ...options, ...byDefault, signal });
      if (this.#stopping) this.stop();
      for (const pause of this.#pauses) this.#pause(this.#run, pause);
      this.#pauses = [];
      for await (const event of this.#run) {
        if (event.type === "checkpoint") this.#sendCheckpoint(event);
        this.#queue.push(event);
      }
      const result = await this.#run.result;
      this.#reply({ kind: "result", run, result });
    } catch (error) {
      this.#reply({
        kind: "failed",
        run,
        error: serializeError(error),
        aborted: signal.aborted && error === signal.reason,
      });
    } finally {
      this.#queue.close();
    }
  }

  /** Sends events according to the credit, then the end. */
  async #send(): Promise<void> {
    for (;;) {
      while (this.#credit === 0) await new Promise<void>((resolve) => (this.#resumeSending = resolve));
      const next = await this.#queue.next();
      if (next.done === true) break;
      this.#credit -= 1;
      this.#reply({ kind: "event", run: this.#number, event: next.value });
    }
    this.#reply({ kind: "end", run: this.#number });
    this.#finished();
  }

  #pause(run: Run<FinetuneResult>, pause: number): void {
    void run.pause().then(() => this.#reply({ kind: "paused", run: this.#number, pause }));
  }

  /** Sends a checkpoint unless an unconfirmed one is in transit, so that a client that does not read is not flooded. */
  #sendCheckpoint(checkpoint: CheckpointEvent): void {
    this.#unsentCheckpoint = this.#isSendingCheckpoint ? checkpoint : undefined;
    if (this.#isSendingCheckpoint) return;
    this.#isSendingCheckpoint = true;
    this.#reply({ kind: "saved", run: this.#number, step: checkpoint.step, path: checkpoint.path });
  }
}
