/** The ranks of a run: what they agree on, and the gradients that they add up. */
import { deserialize, serialize } from "node:v8";

import { LowrankError, type ErrorCode } from "../../errors.js";
import type { GradientExchange, Optimizer } from "../../optim/optimizer.js";
import type { Ranks } from "../../ranks/ranks.js";

/**
 * The most gradients in one message. Backward hides the sum of a bucket of 1 MiB, except of the last one. With many ranks
 * a rank sends many short messages, whose latencies 128 KiB for each rank outweigh.
 */
function countBucketValues(size: number): number {
  const bytes = Math.min(Math.max(1 << 20, size << 17), 16 << 20);
  return bytes / Float32Array.BYTES_PER_ELEMENT;
}

/** Errors that all ranks throw. */
const agreed = new WeakSet<object>();

/** Whether all ranks throw this error, so that none of them waits for another. */
export function isAgreed(error: unknown): boolean {
  return typeof error === "object" && error !== null && agreed.has(error);
}

/** The error of one rank's work. */
interface Failed {
  code: ErrorCode;
  message: string;
}

/** What a rank adds to a step, besides its gradients. */
export interface OwnStep {
  /** The rank's part of the loss. */
  loss: Promise<number>;
  /** The tokens that the rank computed. */
  tokens: number;
  /** The bytes that it holds on its devices. */
  memoryBytes: number;
}

/** The sums of a step over all ranks. */
export interface SummedStep {
  loss: number;
  /** Each rank's figures. */
  ranks: { tokensPerSecond: number; memoryBytes: number }[];
}

/** The values that a rank adds to the last bucket: loss, request to stop, and tokens a second and memory of each rank. */
const COMMON_VALUES = 2;
const OWN_VALUES = 2;

/** Runs `work`; with `ranks`, as `RunRanks.agree`. */
export async function agree<T>(ranks: RunRanks | undefined, work: () => Promise<T> | T): Promise<T> {
  return ranks === undefined ? work() : ranks.agree(work);
}

/**
 * The ranks that train one adapter. All of them make the same calls in the same order, and each call waits for the ones
 * before it.
 */
export class RunRanks {
  readonly rank: number;
  readonly size: number;
  readonly localRank: number;
  readonly localSize: number;
  readonly host: string;
  readonly #ranks: Ranks;
  readonly #stopSignal: AbortSignal;
  readonly #inOrder: boolean;
  readonly #stop = new AbortController();
  #lastCall: Promise<unknown> = Promise.resolve();
  /** When the ranks last met, by `performance.now`. */
  #lastExchange = performance.now();

  /** `asked` is aborted when this rank is asked to stop. With `inOrder`, gradients are added in rank order. */
  constructor(ranks: Ranks, { asked, inOrder }: { asked: AbortSignal; inOrder: boolean }) {
    this.rank = ranks.rank;
    this.size = ranks.size;
    this.localRank = ranks.localRank;
    this.localSize = ranks.localSize;
    this.host = ranks.host;
    this.#ranks = ranks;
    this.#stopSignal = asked;
    this.#inOrder = inOrder;
  }

  /** Aborted on all ranks at the same point of the run, once one of them was asked to stop. */
  get stopping(): AbortSignal {
    return this.#stop.signal;
  }

  /** Aborted when this rank was asked to stop, before the others know. */
  get asked(): AbortSignal {
    return this.#stopSignal;
  }

  /** Whether this rank writes and reports. */
  get isFirst(): boolean {
    return this.rank === 0;
  }

  /** Runs `work` on every rank. If it fails on a rank, all ranks throw the error of the first one that failed. */
  async agree<T>(work: () => Promise<T> | T): Promise<T> {
    let value: T | undefined;
    let failure: unknown;
    let failed: Failed | undefined;
    try {
      value = await work();
    } catch (error) {
      failure = error;
      const { code, message } = error as { code?: unknown; message?: unknown };
      failed = {
        code: error instanceof LowrankError ? error.code : "ERR_INTERNAL",
        message: typeof message === "string" ? message : String(code ?? error),
      };
    }
    const outcomes = await this.gatherAll(failed);
    const first = outcomes.findIndex((outcome) => outcome !== undefined);
    if (first < 0) return value as T;
    const { code, message } = outcomes[first] as Failed;
    const everywhere = outcomes.every((outcome) => outcome?.message === message);
    const error = new LowrankError(code, everywhere ? message : `rank ${first}: ${message}`, {
      cause: failure,
    });
    agreed.add(error);
    throw error;
  }

  /** Returns a value of every rank, in rank order, and takes over a request to stop. Values are cloned. */
  async gatherAll<T>(value: T): Promise<T[]> {
    const message = serialize({ stopping: this.#stopSignal.aborted, value });
    const all = (await this.gatherBytes(message)).map(
      (bytes) => deserialize(bytes) as { stopping: boolean; value: T },
    );
    if (all.some(({ stopping }) => stopping)) this.#stop.abort();
    return all.map((message) => message.value);
  }

  /** Returns the bytes of every rank, in rank order. */
  gatherBytes(bytes: Uint8Array): Promise<Uint8Array[]> {
    return this.#runInTurn(() => this.#ranks.gather(bytes));
  }

  /** Sends `parts[r]` to each rank `r`. Returns what each rank sent to this one. */
  exchange(parts: readonly Uint8Array[]): Promise<Uint8Array[]> {
    return this.#runInTurn(() => this.#ranks.exchange(parts));
  }

  /** Begins to read the optimizer's gradients, for `sumGradients`. */
  beginSum(optimizer: Optimizer): GradientExchange {
    return optimizer.beginExchange(countBucketValues(this.size));
  }

  /**
   * Sums the gradients over all ranks, each bucket once its gradients are complete. The device waits for the sums after
   * the work that was recorded before this call. Resolves when all sums are on the device.
   */
  async sumGradients(exchange: GradientExchange, localStep: OwnStep): Promise<SummedStep> {
    exchange.finish();
    const { values, answer, fail } = exchange;
    let computed = 0;
    values.at(-1)?.then(
      () => (computed = performance.now()),
      () => {},
    );
    return this.#runInTurn(async () => {
      let received: Float32Array = new Float32Array();
      for (const [bucket, read] of values.entries()) {
        try {
          const gradients = await read;
          // The loss is known when backward has ended.
          if (bucket === values.length - 1) received = await this.#describe(localStep, computed);
          const all = new Float32Array(gradients.length + received.length);
          all.set(gradients);
          all.set(received, gradients.length);
          const sums = await this.#ranks.sum(all, this.#inOrder);
          answer(bucket, sums.subarray(0, gradients.length));
          received = sums.subarray(gradients.length);
        } catch (error) {
          for (let left = bucket; left < values.length; left++) fail(left, (error as Error).message);
          throw error;
        }
      }
      this.#lastExchange = performance.now();
      return this.#read(received);
    });
  }

  /** `computed` is the time when the rank's gradients were complete. */
  async #describe({ loss, tokens, memoryBytes }: OwnStep, computed: number): Promise<Float32Array> {
    const values = new Float32Array(COMMON_VALUES + OWN_VALUES * this.size);
    const seconds = (computed - this.#lastExchange) / 1000;
    values.set([await loss, Number(this.#stopSignal.aborted)]);
    values.set([tokens / seconds, memoryBytes], COMMON_VALUES + OWN_VALUES * this.rank);
    return values;
  }

  #read(values: Float32Array): SummedStep {
    const [loss, stopping] = values as unknown as [number, number];
    if (stopping > 0) this.#stop.abort();
    const ranks = Array.from({ length: this.size }, (_, rank) => {
      const offset = COMMON_VALUES + OWN_VALUES * rank;
      return { tokensPerSecond: values[offset] as number, memoryBytes: values[offset + 1] as number };
    });
    return { loss, ranks };
  }

  /** Runs `work` after all earlier work: MPI matches the calls of the ranks by their order. */
  #runInTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#lastCall.then(work);
    this.#lastCall = done.catch(() => {});
    return done;
  }
}
