/** Generates for many requests with one model; new requests join the batch while others run. */
import { LowrankError } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import { type NextToken, type DecodedText, Decoding } from "../models/decoding.js";
import type { CheckedOptions } from "../models/generate-options.js";
import { createDecodedTexts, readLogprobs } from "../models/generate.js";
import { type Piece, TextStream } from "../models/text-stream.js";
import { ApiError } from "./api-error.js";

/** The maximum prompt tokens computed between two tokens of running texts, except for a single longer prompt. */
const PROMPT_TOKENS = 2048;

/** The generation of one request. */
export interface Generation {
  /** A prompt for each text. */
  prompts: readonly Int32Array[];
  /** The sampling seed of each text. */
  seeds: readonly number[];
  options: CheckedOptions;
  /** The adapter of all texts, null for the base model. */
  adapter: string | null;
  /** Tokens that end a text. */
  ends: readonly number[];
}

/** Why a text ended: an end token or stop string, or the maximum number of tokens. */
export type FinishReason = "stop" | "length";

/** A continuation or the end of text number `index` of a request. `tokens` counts all its tokens so far. */
export interface GenerationEvent {
  index: number;
  text: string;
  /** The tokens of the text, if log-probabilities were requested. */
  pieces: readonly Piece[];
  tokens: number;
  finish: FinishReason | null;
}

/** A running text of a job. */
interface Running {
  job: Job;
  index: number;
  stream: TextStream;
  /** The number of chosen tokens, end token included, and of released tokens. */
  generated: number;
  given: number;
}

/** A waiting or running request, as a stream of its events. */
export class Job implements AsyncIterable<GenerationEvent> {
  /** The number of texts that have not ended. */
  unfinished: number;
  readonly #events: GenerationEvent[] = [];
  #failure: { error: unknown } | undefined;
  #wake = (): void => {};

  constructor(readonly generation: Generation) {
    this.unfinished = generation.prompts.length;
  }

  push(event: GenerationEvent): void {
    if (event.finish !== null) this.unfinished--;
    this.#events.push(event);
    this.#wake();
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  /** Yields the events; throws the error that ended the request. */
  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationEvent, void, void> {
    for (;;) {
      yield* this.#events.splice(0);
      if (this.#events.length > 0) continue;
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.unfinished === 0) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

export interface BatcherOptions {
  /** The maximum number of concurrent texts. */
  maxConcurrent: number;
  /** The maximum number of waiting requests. */
  maxQueue: number;
  /** Called when the device has stopped responding. */
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
    // Runs in the caller's asynchronous context, whose matmul precision applies to all requests.
    this.#done = this.#runLoop();
  }

  /** The number of waiting requests and running texts. */
  get load(): { waiting: number; running: number } {
    return { waiting: this.#waiting.length, running: this.#running.size };
  }

  /**
   * Queues a request. Throws an `ApiError` with status 429 if too many requests wait, and 503 while the server stops.
   */
  submit(generation: Generation): Job {
    if (this.#closed) throw new ApiError(503, "the server is stopping", { code: "server_stopping" });
    const job = new Job(generation);
    if (!this.#fits(job) && this.#countQueued() >= this.#options.maxQueue) {
      const what = `${this.#running.size} texts are being generated and ${this.#waiting.length} requests wait`;
      throw new ApiError(429, `${what}; try again later`, { code: "queue_full" }, { "Retry-After": "1" });
    }
    this.#waiting.push(job);
    this.#wake();
    return job;
  }

  /** Whether a request can start now, after those queued before it. */
  #fits(job: Job): boolean {
    const before = this.#waiting.reduce((sum, { unfinished }) => sum + unfinished, this.#running.size);
    return before + job.unfinished <= this.#options.maxConcurrent;
  }

  /** The number of requests that wait for others to end, not only for the next step. */
  #countQueued(): number {
    let texts = this.#running.size;
    return this.#waiting.filter(({ unfinished }) => (texts += unfinished) > this.#options.maxConcurrent)
      .length;
  }

  /** Ends a request whose client has disconnected, and frees its slots at once. */
  cancel(job: Job): void {
    job.fail(new ApiError(499, "the client has gone"));
    const place = this.#waiting.indexOf(job);
    if (place >= 0) this.#waiting.splice(place, 1);
    for (const [text, running] of this.#running) if (running.job === job) this.#end(text);
    this.#wake();
  }

  /** Rejects waiting and new requests; resolves when running ones have ended. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const job of this.#waiting.splice(0))
      job.fail(new ApiError(503, "the server is stopping", { code: "server_stopping" }));
    this.#wake();
    await this.#done;
  }

  /** Ends running requests with an error. */
  abort(error: unknown): void {
    for (const [text, { job }] of [...this.#running]) {
      this.#end(text);
      job.fail(error);
    }
    this.#wake();
  }

  async #runLoop(): Promise<void> {
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

  /** Replaces the decoder, to free a step that was recorded ahead for texts that have ended. */
  #renew(): void {
    const old = this.#decoding;
    this.#decoding = new Decoding(this.#model);
    try {
      old.dispose();
    } catch (error) {
      // No request is left to fail, and the next one gets a new decoder.
      this.#reportLoss(error);
    }
  }

  #reportLoss(error: unknown): void {
    if (error instanceof LowrankError && error.code === "ERR_DEVICE_LOST") this.#options.onLost(error);
  }

  /** Admits requests, first come, first served, while there are free slots. */
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
        const texts = createDecodedTexts("generate", this.#model, prompts, seeds, options, adapters);
        this.#decoding.admit(texts);
        for (const [index, text] of texts.entries()) {
          const stream = new TextStream(this.#model.tokenizer, text.prompt, options.stops);
          this.#running.set(text, { job, index, stream, generated: 0, given: 0 });
        }
      } catch (error) {
        job.fail(error);
      }
    }
  }

  #advance(chosen: NextToken): void {
    const running = this.#running.get(chosen.text);
    if (running === undefined) return;
    const { job, index, stream } = running;
    if ("failure" in chosen) {
      job.fail(chosen.failure);
      this.cancel(job);
      return;
    }
    running.generated++;
    const over = job.generation.ends.includes(chosen.token);
    const pieces = over ? [] : stream.add(chosen.token, readLogprobs(chosen));
    const full = running.generated >= chosen.text.count;
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
