/** An event of a queue, in which unread `step` events are merged. */
export interface Queued {
  /** Identifies the event. */
  type: string;
  /** For a `step` event, the number of steps in it. */
  merged?: number | undefined;
  /** The trial of a sweep that the event belongs to; only steps of the same trial are merged. */
  trial?: string | undefined;
}

/** The maximum number of unread events. */
const QUEUE_LIMIT = 1024;

interface Waiting<E> {
  resolve: (result: IteratorResult<E, undefined>) => void;
  reject: (error: unknown) => void;
}

/**
 * A queue of events that delivers each of them once. It is bounded and never blocks the writer. When it is full, the
 * oldest `step` event is merged into the next one; with fewer than two of those, the oldest event other than `start` is
 * dropped.
 */
export class EventQueue<E extends Queued> {
  readonly #limit: number;
  readonly #events: E[] = [];
  readonly #waiting: Waiting<E>[] = [];
  #closed = false;
  #failure: { error: unknown } | undefined;

  constructor(limit: number = QUEUE_LIMIT) {
    this.#limit = limit;
  }

  get length(): number {
    return this.#events.length;
  }

  push(event: E): void {
    if (this.#closed) return;
    const reader = this.#waiting.shift();
    if (reader !== undefined) {
      reader.resolve({ value: event, done: false });
      return;
    }
    // Only the newest progress event is useful.
    if (event.type === "progress" && this.#events.at(-1)?.type === "progress") this.#events.pop();
    this.#events.push(event);
    if (this.#events.length > this.#limit) this.#shrink();
  }

  /** Ends the queue; readers receive the remaining events first. */
  close(): void {
    this.#closed = true;
    for (const reader of this.#waiting.splice(0)) reader.resolve({ value: undefined, done: true });
  }

  /** Ends the queue like `close`, but readers then receive the error. */
  fail(error: unknown): void {
    this.#closed = true;
    this.#failure = { error };
    for (const reader of this.#waiting.splice(0)) reader.reject(error);
  }

  next(): Promise<IteratorResult<E, undefined>> {
    const event = this.#events.shift();
    if (event !== undefined) return Promise.resolve({ value: event, done: false });
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    if (this.#closed) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Returns the places of the oldest `step` event that has a later one of the same trial, and of that one; −1 without. */
  #findMergeable(): [first: number, second: number] {
    const oldest = new Map<string | undefined, number>();
    const pairs = this.#events.flatMap(({ type, trial }, i): [number, number][] => {
      if (type !== "step") return [];
      const first = oldest.get(trial);
      if (first === undefined) oldest.set(trial, i);
      return first === undefined ? [] : [[first, i]];
    });
    return pairs[0] ?? [-1, -1];
  }

  #shrink(): void {
    const events = this.#events;
    const [first, second] = this.#findMergeable();
    const [older, newer] = [events[first], events[second]];
    if (older?.type === "step" && newer?.type === "step") {
      events[second] = { ...newer, merged: (older.merged ?? 1) + (newer.merged ?? 1) };
      events.splice(first, 1);
    } else {
      events.splice(events[0]?.type === "start" ? 1 : 0, 1);
    }
  }
}
