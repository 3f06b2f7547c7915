/** Random values from one counter-based generator (Philox 4×32-10), addressed by a seed and a count of draws. */
import { AsyncLocalStorage } from "node:async_hooks";

import { checkWhole } from "../arguments/check.js";
import { native, call } from "../native/binding.js";

/** The generator's state: the seed and the number of draws so far. */
export interface RandomState {
  seed: number;
  draws: number;
}

/** The environment's state. */
const processState: RandomState = { seed: 0, draws: 0 };
const states = new AsyncLocalStorage<RandomState>();

function findState(): RandomState {
  return states.getStore() ?? processState;
}

/** Seeds this environment's generator. Equal seeds give equal values. Throws `ERR_OPTION`. */
export function manualSeed(seed: number): void {
  setRandomState({ seed: checkWhole("manualSeed", "seed", seed), draws: 0 });
}

/** @internal Runs `fn` with a separate generator, so that concurrent runs do not affect each other. */
export function runWithRandom<T>(seed: number, fn: () => T): T {
  return states.run({ seed, draws: 0 }, fn);
}

/** @internal Returns the state for a checkpoint. */
export function readRandomState(): RandomState {
  return { ...findState() };
}

/** @internal Returns the generator of the current asynchronous context, from which other contexts can draw. */
export function findGenerator(): RandomState {
  return findState();
}

/** @internal */
export function setRandomState(saved: RandomState): void {
  Object.assign(findState(), saved);
}

/** @internal Returns seed and stream of the next draw, for a dropout mask or for values. */
export function drawStream(state: RandomState = findState()): [seed: number, stream: number] {
  return [state.seed, state.draws++];
}

/** @internal Draws values of U(low, high). */
export function drawUniformValues(size: number, low: number, high: number): Float32Array {
  const [seed, stream] = drawStream();
  return call(() => native().uniform(seed, stream, size, low, high));
}

/** @internal Draws values of N(0, 1). */
export function drawNormalValues(size: number): Float32Array {
  const [seed, stream] = drawStream();
  return call(() => native().normal(seed, stream, size));
}
