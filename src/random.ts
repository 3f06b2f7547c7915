/** Random values. All come from one counter-based generator (Philox 4×32-10): a seed and a count of draws. */
import { AsyncLocalStorage } from "node:async_hooks";

import { whole as wholeNumber } from "./argument.js";
import { native, call } from "./native.js";

/** Where the generator is: a seed and how many draws it has given. */
export interface RandomState {
  seed: number;
  draws: number;
}

/** The environment's. */
const whole: RandomState = { seed: 0, draws: 0 };
const own = new AsyncLocalStorage<RandomState>();

function current(): RandomState {
  return own.getStore() ?? whole;
}

/** Starts the generator of this environment anew. The same seed gives the same values. Throws `ERR_OPTION`. */
export function manualSeed(seed: number): void {
  setRandomState({ seed: wholeNumber("manualSeed", "seed", seed), draws: 0 });
}

/** @internal Runs `fn` with a generator of its own, so that a run neither disturbs the others nor is disturbed. */
export function withRandom<T>(seed: number, fn: () => T): T {
  return own.run({ seed, draws: 0 }, fn);
}

/** @internal For checkpoints. */
export function randomState(): RandomState {
  return { ...current() };
}

/** @internal */
export function setRandomState(saved: RandomState): void {
  Object.assign(current(), saved);
}

/** @internal Seed and stream of the next draw: of a dropout mask, or of values. */
export function nextDropout(): [seed: number, stream: number] {
  const state = current();
  return [state.seed, state.draws++];
}

/** @internal Values of U(low, high). */
export function uniform(size: number, low: number, high: number): Float32Array {
  const [seed, stream] = nextDropout();
  return call(() => native().uniform(seed, stream, size, low, high));
}

/** @internal Values of N(0, 1). */
export function normal(size: number): Float32Array {
  const [seed, stream] = nextDropout();
  return call(() => native().normal(seed, stream, size));
}
