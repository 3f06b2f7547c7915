/**
 * Lifetimes. A scope frees what it made and did not return; its extent, that of `noGrad` and that
 * of `checkpoint` follow the asynchronous call, so that several may interleave.
 */
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";

import { callable, shown } from "./argument.js";
import { checkCpuUse, cpuThreads, type CpuUse, type CurrentCpuUse } from "./cpu-use.js";
import { LowrankError } from "./errors.js";
import { session } from "./native.js";

/** What scopes own: tensors, which are made above. */
export interface Owned {
  /** Lets it be freed when nothing refers to it any more. */
  watch(): void;
  /** Gives up the handle, which is the caller's to free; undefined where it has none. */
  leave(): number | undefined;
}

/** What a scope has made so far. */
class Made extends Set<Owned> {
  /** While a synchronous call runs. An asynchronous one may never settle, and what it left running may outlive it. */
  #sure = true;
  /** Whether its scope is over. */
  ended = false;

  /** `outer` was in force where its scope began. */
  constructor(readonly outer: Frame) {
    super();
  }

  /** Owns `tensor`, too. One that may not be freed at the end is freed when nothing refers to it. */
  own(tensor: Owned): void {
    this.add(tensor);
    if (!this.#sure) tensor.watch();
  }

  /** From now on nothing says that the call's end is to come. */
  doubt(): void {
    this.#sure = false;
    for (const tensor of this) tensor.watch();
  }
}

/** What is in force for the code that runs now. */
interface Frame {
  /** Of the innermost scope; undefined outside any. */
  made: Made | undefined;
  noGrad: boolean;
  /** The open checkpoint, 0 for none. */
  region: number;
  /** Undefined where `setMatmulPrecision` says. */
  products: MatmulPrecision | undefined;
  /** What differs from `setCpuUse`. */
  cpu?: CpuUse | undefined;
  /** Layers compute as in eval, whatever their `training` says. */
  evaluating: boolean;
  /** What is made is noted here, whoever owns it. */
  noted?: WeakSet<Owned> | undefined;
}

/**
 * How layers may round the factors of products by a weight; sums are f32 in any case.
 * - `exact`: not at all; what is stored as f16 or bf16 is widened.
 * - `bf16`: on the cpu, by a weight that is stored as bf16, the other factor is rounded to bf16, too: twice the speed
 *   where the processor multiplies pairs of bf16. There attention rounds the factors of its products as well, whatever
 *   weights are stored as. Products of at most 8 rows (decoding) are exact.
 * - `f16`: on a gpu that computes in f16 (SHADER_F16), both factors of products of more than 64 rows and 64 columns are
 *   rounded to f16, each of their lines scaled by a power of two, so that neither small gradients nor large
 *   activations leave its range. Products by weights in blocks are exact.
 *
 * It permits rounding and asks for none: where a device has no such products, they are exact.
 */
export type MatmulPrecision = "exact" | "bf16" | "f16";

export const MATMUL_PRECISIONS = ["exact", "bf16", "f16"] as const satisfies readonly MatmulPrecision[];

const OUTSIDE: Frame = {
  made: undefined,
  noGrad: false,
  region: 0,
  products: undefined,
  evaluating: false,
};
const frames = new AsyncLocalStorage<Frame>();
let mode: Frame = OUTSIDE;
let regions = 0;
let products: MatmulPrecision = "exact";
let told: MatmulPrecision = "exact";
let cpu: CpuUse = {};
let appliedCpu: CpuUse = cpu;

/** Tells the tape what is in force, when it is not what it was told last. */
export function enter(): void {
  const frame = frames.getStore() ?? OUTSIDE;
  if (frame.noGrad !== mode.noGrad || frame.region !== mode.region) {
    session().setMode(frame.noGrad, frame.region);
  }
  mode = frame;
  const precision = frame.products ?? products;
  if (precision !== told) session().setMatmulPrecision(precision);
  told = precision;
  applyCpuUse(frame.cpu ?? cpu);
}

/** Tells the engine how it may use the processor, when that is not what it was told last. */
function applyCpuUse(use: CpuUse): void {
  if (use === appliedCpu) return;
  session().useCpu(use.threads ?? 0, use.priority === "background");
  appliedCpu = use;
}

/** Lets work besides tensors' that is started next, such as tokenisation, use the processor as the code that runs now may. */
export function enterCpuUse(): void {
  applyCpuUse(frames.getStore()?.cpu ?? cpu);
}

/** Lets the innermost scope own `tensor`. */
export function own(tensor: Owned): void {
  const frame = frames.getStore();
  frame?.noted?.add(tensor);
  hand(tensor, frame?.made);
}

/** Runs `fn` and notes in `made` every tensor that it makes; who owns them stays as it is. */
export function noting<T>(made: WeakSet<Owned>, fn: () => T): T {
  return frames.run({ ...(frames.getStore() ?? OUTSIDE), noted: made }, fn);
}

/** Takes `tensor` out of the innermost scope: what a module or an optimizer holds outlives it. */
export function keep(tensor: Owned): void {
  disown(tensor);
  tensor.watch();
}

/** Takes `tensor`, which is being disposed, out of the innermost scope. */
export function disown(tensor: Owned): void {
  frames.getStore()?.made?.delete(tensor);
}

function hand(tensor: Owned, owner: Made | undefined): void {
  if (owner === undefined) tensor.watch();
  else owner.own(tensor);
}

/**
 * What runs a function later as it would run here: with or without gradients, by the same adapters, in the same
 * precision. What it makes is of the innermost scope around here that is still open by then, and of its checkpoint.
 */
export function resumption(): <T>(fn: () => T) => T {
  const frame = frames.getStore() ?? OUTSIDE;
  const precision = matmulPrecision();
  // AsyncLocalStorage.snapshot() does the same from Node 18.16 on.
  const resume = AsyncResource.bind(<T>(work: () => T): T => work());
  return (fn) => {
    let { made, region } = frame;
    while (made?.ended) ({ made, region } = made.outer);
    return resume(() => frames.run({ ...frame, made, region, products: precision }, fn));
  };
}

/** Whether gradients are off. */
export function isNoGrad(): boolean {
  return (frames.getStore() ?? OUTSIDE).noGrad;
}

/** Whether operations leave nothing for backward to find: gradients are off, and no checkpoint is open. */
export function leavesNothing(): boolean {
  const { noGrad, region } = frames.getStore() ?? OUTSIDE;
  return noGrad && region === 0;
}

/**
 * Runs `fn` and disposes every tensor that it made, but for those reachable in what it returns;
 * these belong to the scope around it. When `fn` throws, everything that it made is disposed.
 */
export function scope<T>(fn: () => T): T {
  callable("scope", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  const made = new Made(outer);
  return settle(
    made,
    () => frames.run({ ...outer, made }, fn),
    (result) => release(made, reachable(result, made), outer.made),
    () => release(made, new Set(), outer.made),
  );
}

/** Runs `fn` with nothing recorded for backward. */
export function noGrad<T>(fn: () => T): T {
  callable("noGrad", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  return frames.run({ ...outer, noGrad: true }, fn);
}

/**
 * Runs `fn` with every layer in eval mode, without touching `training`: what goes on elsewhere on the same model, a
 * run between two of its steps among it, keeps its dropout. Layers are not merged for it, but compute as they stand.
 */
export function evaluating<T>(fn: () => T): T {
  const outer = frames.getStore() ?? OUTSIDE;
  return frames.run({ ...outer, evaluating: true }, fn);
}

/** Whether `layer` computes as in training just now: what drops or takes batch statistics asks this, not `training`. */
export function trains(layer: { readonly training: boolean }): boolean {
  return layer.training && !(frames.getStore()?.evaluating ?? false);
}

/** The precision of products for the code that runs now. */
export function matmulPrecision(): MatmulPrecision {
  return frames.getStore()?.products ?? products;
}

/**
 * Sets the precision of products by weights, in forward and backward, for layers that run from now on, as
 * `torch.set_float32_matmul_precision` does. Backward and checkpoints run again with what forward was recorded with.
 * Throws `ERR_OPTION`.
 */
export function setMatmulPrecision(precision: MatmulPrecision): void {
  products = checked("setMatmulPrecision", precision);
}

/** Runs `fn` with a precision of products of its own. Throws `ERR_OPTION`. */
export function withMatmulPrecision<T>(precision: MatmulPrecision, fn: () => T): T {
  callable("withMatmulPrecision", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  return frames.run({ ...outer, products: checked("withMatmulPrecision", precision) }, fn);
}

/** How the engine uses the processor for the code that runs now. */
export function cpuUse(): CurrentCpuUse {
  const { threads, priority = "normal" } = frames.getStore()?.cpu ?? cpu;
  const all = cpuThreads();
  return { threads: threads ?? (priority === "background" ? Math.max(1, all - 1) : all), priority };
}

/**
 * Sets how many threads compute from now on, and at which priority, in this process or worker; what is left out is as by
 * default. No bit of a result depends on it. Devices are shared: work of others on the same device keeps its own.
 * Throws `ERR_OPTION`.
 */
export function setCpuUse(use: CpuUse): void {
  cpu = checkCpuUse("setCpuUse", use);
}

/** Runs `fn` with threads or a priority of its own; what is left out is as around it. Throws `ERR_OPTION`. */
export function withCpuUse<T>(use: CpuUse, fn: () => T): T {
  callable("withCpuUse", "fn", fn);
  return withCheckedCpuUse(checkCpuUse("withCpuUse", use), fn);
}

/** `withCpuUse` of what has been checked. */
export function withCheckedCpuUse<T>({ threads, priority }: CpuUse, fn: () => T): T {
  const outer = frames.getStore() ?? OUTSIDE;
  const around = outer.cpu ?? cpu;
  const inner = { threads: threads ?? around.threads, priority: priority ?? around.priority };
  return frames.run({ ...outer, cpu: inner }, fn);
}

function checked(where: string, precision: MatmulPrecision): MatmulPrecision {
  if (MATMUL_PRECISIONS.includes(precision)) return precision;
  throw new LowrankError("ERR_OPTION", `${where}: products are exact, bf16 or f16, not ${shown(precision)}`);
}

/**
 * Runs `fn` and keeps for backward only what enters it; backward runs it forward again (Chen et
 * al. 2016). Random masks are the same the second time. What `fn` makes and does not return is
 * disposed.
 */
export function checkpoint<T>(fn: () => T): T {
  callable("checkpoint", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  // A checkpoint in a checkpoint belongs to the outer one.
  if (outer.region !== 0 || outer.noGrad) return scope(fn);
  const region = ++regions;
  session().openRegion(region);
  const made = new Made(outer);
  const end = (kept: Set<unknown>): void => {
    release(made, kept, outer.made);
    session().closeRegion(region);
  };
  return settle(
    made,
    () => frames.run({ ...outer, made, region }, fn),
    (result) => end(reachable(result, made)),
    () => end(new Set()),
  );
}

/** Runs `fn`, then `done` with its result or `failed`, whether it is asynchronous or not. */
function settle<T>(made: Made, fn: () => T, done: (result: unknown) => void, failed: () => void): T {
  let result: T;
  try {
    result = fn();
  } catch (error) {
    failed();
    throw error;
  }
  if (result instanceof Promise) {
    made.doubt();
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

function release(made: Made, kept: Set<unknown>, outer: Made | undefined): void {
  const ids = new Uint32Array(made.size);
  let count = 0;
  for (const tensor of made) {
    if (kept.has(tensor)) {
      hand(tensor, outer);
      continue;
    }
    const id = tensor.leave();
    if (id !== undefined) ids[count++] = id;
  }
  made.clear();
  made.doubt();
  made.ended = true;
  // One call: it costs more than letting one tensor go.
  if (count > 0) session().dispose(ids.subarray(0, count));
}

/** Everything reachable from `root` through arrays, maps, sets and plain or class instances, and not past `made`. */
function reachable(root: unknown, made: ReadonlySet<unknown>): Set<unknown> {
  const seen = new Set<unknown>();
  const todo = [root];
  while (todo.length > 0) {
    const value = todo.pop();
    if (typeof value !== "object" || value === null || seen.has(value) || ArrayBuffer.isView(value)) continue;
    seen.add(value);
    if (made.has(value)) continue;
    // One by one: a call takes no more arguments than its stack holds.
    if (value instanceof Map) for (const one of value) todo.push(...one);
    else for (const one of value instanceof Set ? value : Object.values(value)) todo.push(one);
  }
  return seen;
}
