/** Random values. All come from one counter-based generator (Philox 4×32-10): a seed and a count of draws. */
import { native, call } from "./native.js";
import { converted, type Tensor, type TensorOptions } from "./tensor.js";

/** Where the generator is: a seed and how many draws it has given. */
export interface RandomState {
  seed: number;
  draws: number;
}

let state: RandomState = { seed: 0, draws: 0 };

/** Starts the generator of this environment anew. The same seed gives the same values. */
export function manualSeed(seed: number): void {
  state = { seed, draws: 0 };
}

/** @internal For checkpoints. */
export function randomState(): RandomState {
  return { ...state };
}

/** @internal */
export function setRandomState(saved: RandomState): void {
  state = { ...saved };
}

/** @internal Seed and stream of the next dropout mask. */
export function nextDropout(): [seed: number, stream: number] {
  return [state.seed, state.draws++];
}

/** @internal Values of U(low, high). */
export function uniform(size: number, low: number, high: number): Float32Array {
  return call(() => native().uniform(state.seed, state.draws++, size, low, high));
}

/** @internal Values of N(0, 1). */
export function normal(size: number): Float32Array {
  return call(() => native().normal(state.seed, state.draws++, size));
}

/** Uniform on [0, 1). */
export function rand(shape: readonly number[], options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return converted(uniform(count(shape), 0, 1), shape, options);
}

/** Normal, of mean 0 and variance 1. */
export function randn(shape: readonly number[], options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return converted(normal(count(shape)), shape, options);
}

function count(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1);
}
