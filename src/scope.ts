/**
 * Lifetimes. A scope frees what it made and did not return; its extent, that of `noGrad` and that
 * of `checkpoint` follow the asynchronous call, so that several may interleave.
 */
import { AsyncLocalStorage } from "node:async_hooks";

import { session } from "./native.js";
import type { Tensor } from "./tensor.js";

/** What is in force for the code that runs now. */
interface Frame {
  /** What the innermost scope has made so far; undefined outside any. */
  made: Set<Tensor> | undefined;
  noGrad: boolean;
  /** The open checkpoint, 0 for none. */
  region: number;
}

const OUTSIDE: Frame = { made: undefined, noGrad: false, region: 0 };
const frames = new AsyncLocalStorage<Frame>();
let mode: Frame = OUTSIDE;
let regions = 0;

/** Tells the tape what is in force, when it is not what it was told last. */
export function enter(): void {
  const frame = frames.getStore() ?? OUTSIDE;
  if (frame.noGrad !== mode.noGrad || frame.region !== mode.region) {
    session().setMode(frame.noGrad, frame.region);
  }
  mode = frame;
}

/** Lets the innermost scope own `tensor`. */
export function own(tensor: Tensor): void {
  frames.getStore()?.made?.add(tensor);
}

/** Takes `tensor` out of the innermost scope: what a module or an optimizer holds outlives it. */
export function keep(tensor: Tensor): void {
  frames.getStore()?.made?.delete(tensor);
}

/** Whether gradients are off. */
export function isNoGrad(): boolean {
  return (frames.getStore() ?? OUTSIDE).noGrad;
}

/**
 * Runs `fn` and disposes every tensor that it made, but for those reachable in what it returns;
 * these belong to the scope around it. When `fn` throws, everything that it made is disposed.
 */
export function scope<T>(fn: () => T): T {
  const outer = frames.getStore() ?? OUTSIDE;
  const made = new Set<Tensor>();
  return settle(
    () => frames.run({ ...outer, made }, fn),
    (result) => release(made, reachable(result), outer.made),
    () => release(made, new Set(), outer.made),
  );
}

/** Runs `fn` with nothing recorded for backward. */
export function noGrad<T>(fn: () => T): T {
  const outer = frames.getStore() ?? OUTSIDE;
  return frames.run({ ...outer, noGrad: true }, fn);
}

/**
 * Runs `fn` and keeps for backward only what enters it; backward runs it forward again (Chen et
 * al. 2016). Random masks are the same the second time. What `fn` makes and does not return is
 * disposed.
 */
export function checkpoint<T>(fn: () => T): T {
  const outer = frames.getStore() ?? OUTSIDE;
  // A checkpoint in a checkpoint belongs to the outer one.
  if (outer.region !== 0 || outer.noGrad) return scope(fn);
  const region = ++regions;
  session().openRegion(region);
  const made = new Set<Tensor>();
  const end = (kept: Set<unknown>): void => {
    release(made, kept, outer.made);
    session().closeRegion(region);
  };
  return settle(
    () => frames.run({ ...outer, made, region }, fn),
    (result) => end(reachable(result)),
    () => end(new Set()),
  );
}

/** Runs `fn`, then `done` with its result or `failed`, whether it is asynchronous or not. */
function settle<T>(fn: () => T, done: (result: unknown) => void, failed: () => void): T {
  let result: T;
  try {
    result = fn();
  } catch (error) {
    failed();
    throw error;
  }
  if (result instanceof Promise) {
    return result.then(
      (value: unknown) => {
        done(value);
        return value;
      },
      (error: unknown) => {
        failed();
        throw error;
      },
    ) as T;
  }
  done(result);
  return result;
}

function release(made: Set<Tensor>, kept: Set<unknown>, outer: Set<Tensor> | undefined): void {
  for (const tensor of made) {
    if (!kept.has(tensor)) tensor.dispose();
    else outer?.add(tensor);
  }
  made.clear();
}

/** Everything reachable from `root` through arrays, maps, sets and plain or class instances. */
function reachable(root: unknown): Set<unknown> {
  const seen = new Set<unknown>();
  const todo = [root];
  while (todo.length > 0) {
    const value = todo.pop();
    if (typeof value !== "object" || value === null || seen.has(value) || ArrayBuffer.isView(value)) continue;
    seen.add(value);
    if (value instanceof Map) todo.push(...value.keys(), ...value.values());
    else if (value instanceof Set) todo.push(...value);
    else todo.push(...(Object.values(value) as unknown[]));
  }
  return seen;
}
