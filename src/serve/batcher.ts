/** Generates for many requests over one model: those that arrive join the batch while others run. */
import { LowrankError } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import { type Chosen, type DecodedText, Decoding } from "../models/decoding.js";
import type { CheckedOptions } from "../models/generate-options.js";
import { decodedTexts, logprobsOf } from "../models/generate.js";
import { type Piece, TextStream } from "../models/text-stream.js";
import { ApiError } from "./api-error.js";

/** Prompt tokens that are computed between two tokens of the texts that run, unless one prompt has more. */
const PROMPT_TOKENS = 2048;

/** A request's part of the batch. */
export interface Generation {
  /** A prompt for each text. */
  prompts: readonly Int32Array[];
  /** The seed of each text's draws. */
  seeds: readonly number[];
  options: CheckedOptions;
  /** The adapter of all of them, null for the base alone. */
  adapter: string | null;
  /** Each of these tokens ends a text. */
  ends: readonly number[];
}

/** Why a text ended: by its end token or a stop, or at its number of tokens. */
export type FinishReason = "stop" | "length";

/** Text that a request's text number `index` continues with, or its end. `tokens` counts all of its tokens so far. */
export interface GenerationEvent {
  index: number;
  text: string;
  /** The tokens of the text, if their log-probabilities were asked for. */
  pieces: readonly Piece[];
  tokens: number;
  finish: FinishReason | null;
}

/** A text of a job that runs. */
interface Running {
  job: Job;
  index: number;
  stream: TextStream;
  /** Tokens chosen, the end token among them, and tokens given. */
  made: number;
  given: number;
}

/** A waiting or running request, and its events in order. */
export class Job implements AsyncIterable<GenerationEvent> {
  /** Texts that have not ended. */
  left: number;
  readonly #events: GenerationEvent[] = [];
  #failure: { error: unknown } | undefined;
  #wake = (): void => {};

  constructor(readonly generation: Generation) {
    this.left = generation.prompts.length;
  }

  push(event: GenerationEvent): void {
    if (event.finish !== null) this.left--;
    this.#events.push(event);
    this.#wake();
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  /** Throws the error that ended the request. */
  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationEvent, void, void> {
    for (;;) {
      yield* this.#events.splice(0);
      if (this.#events.length > 0) continue;
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.left === 0) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

export interface BatcherOptions {
  /** Texts that run at once. */
  maxConcurrent: number;
  /** Requests that wait. */
  maxQueue: number;
  /** Called once the device has stopped answering. */
  onLost: (error: LowrankError) => void;
}

export class Batcher {
  readonly #model: CausalLM;
  readonly #options: BatcherOptions;
  readonly #waiting: Job[] = [];
  readonly #running = new Map<DecodedText, Running>();
  #decoding: Decoding;
  #closed = false;
  #wake = (): void => {};
  readonly #done: Promise<void>;

  constructor(model: CausalLM, options: BatcherOptions) {
    this.#model = model;
    this.#options = options;
    this.#decoding = new Decoding(model);
    // Runs in the caller's asynchronous context, whose precision of products holds for all requests.
    this.#done = this.#work();
  }

  /** Requests that wait, and texts that run. */
  get load(): { waiting: number; running: number } {
    return { waiting: this.#waiting.length, running: this.#running.size };
  }

  /** Throws an `ApiError` with status 429 if too many requests wait, and with 503 once the server stops. */
  submit(generation: Generation): Job {
    if (this.#closed) throw new ApiError(503, "the server is stopping", { code: "server_stopping" });
    const job = new Job(generation);
    if (!this.#fits(job) && this.#queued() >= this.#options.maxQueue) {
      const what = `${this.#running.size} texts are being generated and ${this.#waiting.length} requests wait`;
      throw new ApiError(429, `${what}; try again later`, { code: "queue_full" }, { "Retry-After": "1" });
    }
    this.#waiting.push(job);
    this.#wake();
    return job;
  }

  /** Whether there is a place for a request now, after those that came before it. */
  #fits(job: Job): boolean {
    const before = this.#waiting.reduce((sum, { left }) => sum + left, this.#running.size);
    return before + job.left <= this.#options.maxConcurrent;
  }

  /** Requests that wait for others to end, and not just for the next step. */
  #queued(): number {
    let texts = this.#running.size;
    return this.#waiting.filter(({ left }) => (texts += left) > this.#options.maxConcurrent).length;
  }

  /** Ends a request whose client is gone; its place is free at once. */
  cancel(job: Job): void {
    job.fail(new ApiError(499, "the client has gone"));
    const place = this.#waiting.indexOf(job);
    if (place >= 0) this.#waiting.splice(place, 1);
    for (const [text, running] of this.#running) if (running.job === job) this.#end(text);
    this.#wake();
  }

  /** Refuses requests from now on, those that wait among them; resolves once those that run have ended. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const job of this.#waiting.splice(0))
      job.fail(new ApiError(503, "the server is stopping", { code: "server_stopping" }));
    this.#wake();
    await this.#done;
  }

  /** Ends the requests that run with an error. */
  abort(error: unknown): void {
    for (const [text, { job }] of [...this.#running]) {
      this.#end(text);
      job.fail(error);
    }
    this.#wake();
  }

  async #work(): Promise<void> {
    for (;;) {
      this.#admit();
      if (this.#running.size === 0) {
        this.#renew();
        if (this.#closed) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (this.#waiting.length > 0) resolve();
        });
        continue;
      }
      try {
        for (const chosen of await this.#decoding.next()) this.#advance(chosen);
      } catch (error) {
        this.abort(error);
        this.#reportLoss(error);
      }
    }
  }

  /** Frees a step that was recorded ahead for texts that have ended. */
  #renew(): void {
    const old = this.#decoding;
    this.#decoding = new Decoding(this.#model);
    try {
      old.dispose();
    } catch (error) {
      // No request is left to end with it, and the next one is answered by a decoding of its own.
      this.#reportLoss(error);
    }
  }

  #reportLoss(error: unknown): void {
    if (error instanceof LowrankError && error.code === "ERR_DEVICE_LOST") this.#options.onLost(error);
  }

  /** Admits requests in the order of their arrival, as long as there are places. */
  #admit(): void {
    let tokens = 0;
    for (let job = this.#waiting[0]; job !== undefined; job = this.#waiting[0]) {
      const { prompts, options, seeds, adapter } = job.generation;
      if (this.#running.size > 0 && this.#running.size + prompts.length > this.#options.maxConcurrent) return;
      const length = prompts.reduce((sum, prompt) => sum + prompt.length, 0);
      if (tokens > 0 && tokens + length > PROMPT_TOKENS) return;
      tokens += length;
      this.#waiting.shift();
      try {
        const adapters = prompts.map(() => adapter);
        const texts = decodedTexts("generate", this.#model, prompts, seeds, options, adapters);
        this.#decoding.admit(texts);
        for (const [index, text] of texts.entries()) {
          const stream = new TextStream(this.#model.tokenizer, text.prompt, options.stops);
          this.#running.set(text, { job, index, stream, made: 0, given: 0 });
        }
      } catch (error) {
        job.fail(error);
      }
    }
  }

  #advance(chosen: Chosen): void {
    const running = this.#running.get(chosen.text);
    if (running === undefined) return;
    const { job, index, stream } = running;
    if ("failure" in chosen) {
      job.fail(chosen.failure);
      this.cancel(job);
      return;
    }
    running.made++;
    const over = job.generation.ends.includes(chosen.token);
    const pieces = over ? [] : stream.add(chosen.token, logprobsOf(chosen));
    const full = running.made >= chosen.text.count;
    const ended = over || stream.ended;
    if (!stream.ended && (over || full)) pieces.push(...stream.finish());
    running.given += pieces.length;
    const finish = ended ? "stop" : full ? "length" : null;
    if (finish !== null) this.#end(chosen.text);
    const text = pieces.map((piece) => piece.text).join("");
    const scored = job.generation.options.logprobs === undefined ? [] : pieces;
    if (text !== "" || finish !== null || scored.length > 0)
      job.push({ index, text, pieces: scored, tokens: running.given, finish });
  }

  #end(text: DecodedText): void {
    this.#decoding.end(text);
    this.#running.delete(text);
  }
}
