/** Reads the batches of a `Trainer` by epoch, skips to a position when resuming, and releases used batches. */
import { refuse } from "../../arguments/check.js";
import { readAbortReason, LowrankError } from "../../errors.js";
import { readRandomState, setRandomState, type RandomState } from "../../tensor/random.js";
import { recordAllocations } from "../../tensor/scope.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";

/** Batches, or a function that returns the batches of an epoch (from 0). */
export type Batches<B> = BatchSource<B> | ((epoch: number) => BatchSource<B> | Promise<BatchSource<B>>);
/** A source of batches. */
export type BatchSource<B> = Iterable<B> | AsyncIterable<B>;

/** A position in the data. */
export interface Position {
  epoch: number;
  /** The number of batches already read in that epoch. */
  taken: number;
  /** The random state at the start of the epoch, from which the data draws again when it is reopened. */
  random: RandomState;
}

interface ReaderOptions<B> {
  /** The name of the option, for errors. */
  name: string;
  data: Batches<B>;
  epochs: number;
  /** Whether tensors that the data created are disposed after use. */
  release: boolean;
  /** Rejects a pending read when aborted. */
  signal?: AbortSignal | undefined;
  /** Ends the data early when aborted, even during a read. */
  stopping?: AbortSignal | undefined;
}

/** Reads batches sequentially. */
export class Reader<B> {
  readonly #options: ReaderOptions<B>;
  readonly #allocations = new WeakSet<Tensor>();
  #iterator: Iterator<B> | AsyncIterator<B> | undefined;
  #position: Position = { epoch: 0, taken: 0, random: readRandomState() };
  /** The random state before the step that a stop interrupted. */
  #randomAtStop: RandomState | undefined;
  /** Whether batches may be disposed: an array exists beforehand and may be read again. */
  #isIterated = false;
  #isWaiting = false;
  readonly #usedBatches: B[] = [];

  constructor(options: ReaderOptions<B>) {
    this.#options = options;
  }

  get position(): Position {
    return { ...this.#position };
  }

  /** The random state at `position`, without draws by the data for a batch that a stop discarded. */
  get random(): RandomState {
    return this.#randomAtStop ?? readRandomState();
  }

  /** Reads and discards the batches before `position`. The random state is restored as well. */
  async skipTo(position: Position): Promise<void> {
    const { name } = this.#options;
    setRandomState(position.random);
    this.#position = { ...position, taken: 0 };
    await this.#open();
    while (this.#position.taken < position.taken) {
      const next = await this.#pull();
      if (next === undefined) {
        throw new LowrankError(
          "ERR_OPTION",
          `Trainer: ${name} has ${this.#position.taken} batches in epoch ${position.epoch + 1}, and the checkpoint was made after ${position.taken}: it is other data`,
        );
      }
      this.#usedBatches.push(next.value);
      this.releaseUsed();
    }
  }

  /**
   * Returns up to `count` batches of one epoch; none when all epochs are over, or when the run is stopped before all
   * batches have arrived. After a stop `position` and `random` are unchanged, so that a resumed run reads them again.
   */
  async next(count: number): Promise<B[]> {
    const batches: B[] = [];
    const [position, random] = [this.position, readRandomState()];
    while (batches.length < count) {
      if (this.#iterator === undefined) {
        if (this.#position.epoch >= this.#options.epochs) break;
        await this.#open();
      }
      const next = await this.#pull();
      if (next !== undefined) batches.push(next.value);
      else if (this.#stopped) {
        this.#usedBatches.push(...batches);
        this.#position = position;
        this.#randomAtStop = random;
        return [];
      } else {
        this.#endEpoch();
        if (batches.length > 0) break;
      }
    }
    this.#usedBatches.push(...batches);
    return batches;
  }

  /** Disposes tensors that the data created for used batches. */
  releaseUsed(): void {
    for (const batch of this.#usedBatches.splice(0)) this.#release(batch);
  }

  /** Closes the data's iterator, which may hold files open. */
  close(): void {
    this.releaseUsed();
    const iterator = this.#iterator;
    this.#iterator = undefined;
    // A generator that is waiting would answer only after its pending read, which may never end.
    const ended = Promise.resolve(this.#isWaiting ? undefined : iterator?.return?.());
    ended.catch(() => {});
  }

  #release(batch: B): void {
    if (!this.#options.release || !this.#isIterated) return;
    for (const tensor of collectTensors(batch)) if (this.#allocations.has(tensor)) tensor.dispose();
  }

  get #stopped(): boolean {
    return this.#options.stopping?.aborted ?? false;
  }

  async #open(): Promise<void> {
    const { data, name } = this.#options;
    this.#position.random = readRandomState();
    const { epoch } = this.#position;
    const source: unknown =
      typeof data === "function" ? await recordAllocations(this.#allocations, () => data(epoch)) : data;
    if (typeof source !== "object" || source === null || !isIterable(source)) {
      const expected = "an array, an iterable, or a function that gives one for an epoch";
      refuse("Trainer", name, expected, source);
    }
    this.#isIterated = !Array.isArray(source);
    const given = source as Partial<AsyncIterable<B>> & Iterable<B>;
    this.#iterator = given[Symbol.asyncIterator]?.() ?? given[Symbol.iterator]();
  }

  async #pull(): Promise<Pulled<B>> {
    const iterator = this.#iterator as Iterator<B> | AsyncIterator<B>;
    const pulled = recordAllocations(this.#allocations, async () => {
      const next = await iterator.next();
      // An iterable may yield promises.
      return next.done === true ? undefined : { value: await next.value };
    });
    this.#isWaiting = true;
    const next = await this.#awaitUnlessEnding(pulled);
    if (next === ENDING) return undefined;
    this.#isWaiting = false;
    if (next === undefined) return undefined;
    for (const tensor of collectTensors(next.value)) {
      if (!tensor.disposed) continue;
      throw new LowrankError(
        "ERR_DISPOSED",
        `Trainer: ${this.#options.name} gave a tensor of shape [${tensor.shape.join(", ")}] that was released after an earlier step; create it for each batch, or give release: false`,
      );
    }
    this.#position.taken++;
    return next;
  }

  /** Settles like `pulled`, or ends early on a stop or an abort. A batch that arrives afterwards is released. */
  #awaitUnlessEnding(pulled: Promise<Pulled<B>>): Promise<Pulled<B> | typeof ENDING> {
    const { signal, stopping } = this.#options;
    return new Promise((resolve, reject) => {
      let ended = false;
      const end = (): void => {
        ended = true;
        resolve(ENDING);
      };
      const abort = (): void => {
        ended = true;
        reject(readAbortReason(signal as AbortSignal));
      };
      const removeListeners = (): void => {
        signal?.removeEventListener("abort", abort);
        stopping?.removeEventListener("abort", end);
      };
      const receive = (next: Pulled<B>): void => {
        if (ended && next !== undefined) this.#release(next.value);
        resolve(next);
      };
      pulled.then(receive).catch(reject).finally(removeListeners);
      signal?.addEventListener("abort", abort);
      stopping?.addEventListener("abort", end);
      if (signal?.aborted) abort();
      else if (stopping?.aborted) end();
    });
  }

  #endEpoch(): void {
    const { name } = this.#options;
    const { epoch, taken } = this.#position;
    this.#iterator = undefined;
    if (taken === 0) {
      if (epoch === 0) throw new LowrankError("ERR_OPTION", `the ${name} has no batches`);
      throw new LowrankError(
        "ERR_OPTION",
        `the ${name} has no batches for epoch ${epoch + 1}: give an array, or a function that returns new ones`,
      );
    }
    this.#position = { epoch: epoch + 1, taken: 0, random: readRandomState() };
  }
}

const ENDING = Symbol("ending");

/** A batch; undefined at the end of the epoch. */
type Pulled<B> = { value: B } | undefined;

function isIterable(source: object): boolean {
  return Symbol.iterator in source || Symbol.asyncIterator in source;
}

/** Collects the tensors in arrays, maps, sets and plain objects, at any depth. */
function collectTensors(batch: unknown): Set<Tensor> {
  const found = new Set<Tensor>();
  const seen = new Set<unknown>();
  const todo = [batch];
  while (todo.length > 0) {
    const value = todo.pop();
    if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || seen.has(value)) continue;
    seen.add(value);
    if (isTensor(value)) {
      found.add(value);
      continue;
    }
    const entries =
      value instanceof Map ? [...value].flat() : value instanceof Set ? value : Object.values(value);
    for (const entry of entries) if (typeof entry === "object" && entry !== null) todo.push(entry);
  }
  return found;
}
