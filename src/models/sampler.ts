/** Chooses the next token from logits. */
import { LowrankError } from "../errors.js";
import { native, call } from "../native.js";
import type { CheckedOptions } from "./generate-options.js";

export class Sampler {
  readonly #temperature: number;
  readonly #topP: number;
  readonly #topK: number;
  readonly #seed: number;
  #draws = 0;

  constructor({ temperature, topP, topK, seed }: CheckedOptions) {
    this.#temperature = temperature;
    this.#topP = topP;
    this.#topK = topK;
    this.#seed = seed;
  }

  /** Whether the likeliest is taken each time. */
  get greedy(): boolean {
    return this.#temperature === 0;
  }

  /** The index of the token taken; of equal logits the first. */
  next(logits: Float32Array): number {
    let best = 0;
    for (let i = 0; i < logits.length; i++) {
      const v = logits[i] as number;
      if (!(v === v)) throw notFinite(i);
      if (v > (logits[best] as number)) best = i;
    }
    if (this.#temperature === 0) return best;

    const order = this.#kept(logits);
    const largest = logits[best] as number;
    const weights = order.map((i) => Math.exp(((logits[i] as number) - largest) / this.#temperature));
    const total = weights.reduce((sum, w) => sum + w, 0);
    let kept = weights.length;
    for (let sum = 0, i = 0; i < weights.length; i++) {
      sum += weights[i] as number;
      if (sum >= this.#topP * total) {
        kept = i + 1;
        break;
      }
    }
    const mass = weights.slice(0, kept).reduce((sum, w) => sum + w, 0);
    let left = this.#uniform() * mass;
    for (let i = 0; i < kept; i++) {
      left -= weights[i] as number;
      if (left < 0) return order[i] as number;
    }
    return order[kept - 1] as number;
  }

  /** Token indices by falling logit, cut to the likeliest k. */
  #kept(logits: Float32Array): number[] {
    const order = Array.from(logits.keys());
    order.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
    return this.#topK > 0 ? order.slice(0, this.#topK) : order;
  }

  #uniform(): number {
    return call(() => native().uniform(this.#seed, this.#draws++, 1, 0, 1))[0] as number;
  }
}

export function notFinite(token: number): LowrankError {
  return new LowrankError("ERR_NOT_FINITE", `generate: the logit of token ${token} is NaN`);
}
