/** Random arguments: valid ones, and others that a user might pass by mistake. */
import * as lowrank from "../../src/index.js";

/** Returns a reproducible generator of numbers in [0, 1) (mulberry32). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Thrown by the callbacks here; a caller may rethrow it. */
export class Thrown extends Error {}

const NUMBERS = [
  0,
  1,
  2,
  3,
  5,
  8,
  -1,
  -2,
  0.5,
  1e-3,
  NaN,
  Infinity,
  -Infinity,
  -0,
  // Truncated to 32 bits these would be 1 and negative; no memory has room for that number of elements.
  2 ** 40 + 1,
  2 ** 40 + 2 ** 31,
  2 ** 53,
  1e300,
];
const TEXTS = [
  "",
  "x",
  "cpu",
  "gpu:99",
  "meta:cpu",
  "f32",
  "f16",
  "bf16",
  "i32",
  "mean",
  "sum",
  "none",
  "default",
  "weight",
  "all-linear",
  "(",
  "missing/folder",
];
const KEYS = [
  "r", "loraAlpha", "loraDropout", "dim", "keepDim", "device", "dtype", "shape", "requiresGrad", "bias", "stride",
  "padding", "dilation", "groups", "name", "lr", "betas", "eps", "weightDecay", "reduction", "labels", "targetModules",
  "enableLora", "mergeWeights", "paddingIdx", "warmup", "total", "ratio", "data", "model", "loss", "optimizer", "steps",
  "epochs", "labelSmoothing", "ignoreIndex", "correction", "descending", "affine", "momentum", "unknown",
]; // prettier-ignore

/** Values for arguments, including results of earlier calls. */
export class Pool {
  readonly #held: object[] = [];

  constructor(
    private readonly random: () => number,
    private readonly room = 120,
  ) {}

  /** Holds `value` for later calls; a value that it replaces is disposed. */
  hold(value: object): void {
    if (this.#held.length < this.room) this.#held.push(value);
    else this.#held[this.below(this.room)] = value;
  }

  get held(): readonly object[] {
    return this.#held;
  }

  below(n: number): number {
    return Math.floor(this.random() * n);
  }

  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }

  /** Returns an argument: half of them held values, the others of any kind. */
  argument(depth = 0): unknown {
    const kind = this.below(depth > 2 ? 8 : 20);
    if (kind < 2) return this.of(NUMBERS);
    if (kind === 2) return this.of(TEXTS);
    if (kind === 3) return this.of([undefined, null, true, false]);
    if (kind < 8) return this.#held.length === 0 ? this.below(5) : this.of(this.#held);
    if (kind < 11) return Array.from({ length: this.below(4) }, () => this.argument(depth + 1));
    if (kind < 13) return Array.from({ length: this.below(4) }, () => this.below(5));
    if (kind < 16) {
      const entries = Array.from({ length: this.below(4) }, () => [this.of(KEYS), this.argument(depth + 1)]);
      return Object.fromEntries(entries) as object;
    }
    return this.#odd(kind);
  }

  #odd(kind: number): unknown {
    const size = this.below(7);
    if (kind === 16)
      return this.of([
        new Float32Array(size),
        Int32Array.from({ length: size }, () => this.below(9)),
        new Uint16Array(size),
      ]);
    if (kind === 17)
      return this.of([
        10n,
        Symbol("odd"),
        new Date(0),
        /x/,
        new Map(),
        new Set([1]),
        Promise.resolve(1),
        new DataView(new ArrayBuffer(4)),
      ]);
    if (kind === 18)
      return this.of<unknown>([
        () => 1,
        () => {
          throw new Thrown("by a callback");
        },
        async () => Promise.resolve(1),
        (x: unknown) => x,
        function* () {
          yield 1;
        },
      ]);
    return this.of([
      new Proxy({}, {}),
      Object.create(null) as object,
      new Proxy([1], {}),
      lowrank.Tensor.prototype,
      lowrank.nn.Linear.prototype,
      lowrank.nn.Linear,
      lowrank.nn,
    ]);
  }
}
