/**
 * Lifetimes and modes. A scope frees the tensors that it made and did not return. Scopes, `noGrad` and `checkpoint` follow
 * the asynchronous context, so that several may interleave.
 */
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";

import { checkCallable, formatValue } from "../arguments/check.js";
import { checkCpuUse, countCpuThreads, type CpuUse, type CurrentCpuUse } from "../device/cpu-use.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";

/** An object owned by scopes: a tensor, which a higher layer implements. */
export interface Owned {
  /** Frees it by garbage collection once it is unreachable. */
  watch(): void;
  /** Gives the handle to the caller to free; undefined if it has none. */
  releaseHandle(): number | undefined;
}

/** The tensors that a scope has made so far. */
class ScopeTensors extends Set<Owned> {
  /** Whether the call is synchronous so far. An asynchronous call may never settle, and its work may outlive it. */
  #sure = true;
  /** Whether the scope has ended. */
  ended = false;

  /** `outer` is the frame in which the scope began. */
  constructor(readonly outer: Frame) {
    super();
  }

  /** Adds `tensor`. If the scope may never end, the tensor is also tracked by garbage collection. */
  own(tensor: Owned): void {
    this.add(tensor);
    if (!this.#sure) tensor.watch();
  }

  /** The scope became asynchronous and may never end; falls back to garbage collection. */
  trackByGc(): void {
    this.#sure = false;
    for (const tensor of this) tensor.watch();
  }
}

/** The modes that apply to the running code. */
interface Frame {
  /** The tensors of the innermost scope; undefined outside any scope. */
  tensors: ScopeTensors | undefined;
  noGrad: boolean;
  /** The open checkpoint; 0 for none. */
  region: number;
  /** Overrides `setMatmulPrecision` if set. */
  products: MatmulPrecision | undefined;
  /** Overrides `setCpuUse` if set. */
  cpu?: CpuUse | undefined;
  /** Whether layers compute as in eval mode regardless of their `training`. */
  evaluating: boolean;
  /** Also records every new tensor here, without owning it. */
  allocations?: WeakSet<Owned> | undefined;
}

/**
 * How layers may round the factors of products with a weight. Sums are always f32.
 * - `exact`: no rounding; f16 and bf16 storage is widened.
 * - `bf16`: on the CPU, for a weight stored as bf16, the other factor is also rounded to bf16, which doubles the speed on
 *   processors with bf16 products. There attention also rounds the factors of its products, for any storage of weights.
 *   Products with at most 8 rows (decoding) are exact.
 * - `f16`: on a GPU with f16 arithmetic (SHADER_F16), both factors of products with more than 64 rows and 64 columns are
 *   rounded to f16. Each row or column is scaled by a power of two, so that neither small gradients nor large activations
 *   leave the range of f16. Products with block-quantised weights are exact.
 *
 * This permits rounding but does not require it: devices without such products compute exactly.
 */
export type MatmulPrecision = "exact" | "bf16" | "f16";

export const MATMUL_PRECISIONS = ["exact", "bf16", "f16"] as const satisfies readonly MatmulPrecision[];

const OUTSIDE: Frame = {
  tensors: undefined,
  noGrad: false,
  region: 0,
  products: undefined,
  evaluating: false,
};
const frames = new AsyncLocalStorage<Frame>();
let mode: Frame = OUTSIDE;
let regions = 0;
let products: MatmulPrecision = "exact";
let reported: MatmulPrecision = "exact";
let cpu: CpuUse = {};
let appliedCpu: CpuUse = cpu;

/** Passes the current modes to the tape if they differ from the last ones passed. */
export function enter(): void {
  const frame = frames.getStore() ?? OUTSIDE;
  if (frame.noGrad !== mode.noGrad || frame.region !== mode.region) {
    session().setMode(frame.noGrad, frame.region);
  }
  mode = frame;
  const precision = frame.products ?? products;
  if (precision !== reported) session().setMatmulPrecision(precision);
  reported = precision;
  applyCpuUse(frame.cpu ?? cpu);
}

/** Passes the CPU settings to the engine if they differ from the last ones passed. */
function applyCpuUse(use: CpuUse): void {
  if (use === appliedCpu) return;
  session().useCpu(use.threads ?? 0, use.priority === "background");
  appliedCpu = use;
}

/** Applies the current CPU settings to work other than tensor operations that starts next, such as tokenisation. */
export function enterCpuUse(): void {
  applyCpuUse(frames.getStore()?.cpu ?? cpu);
}

/** Adds `tensor` to the innermost scope. */
export function addToScope(tensor: Owned): void {
  const frame = frames.getStore();
  frame?.allocations?.add(tensor);
  transfer(tensor, frame?.tensors);
}

/** Runs `fn` and records in `allocations` every tensor that it makes, without changing their ownership. */
export function recordAllocations<T>(allocations: WeakSet<Owned>, fn: () => T): T {
  return frames.run({ ...(frames.getStore() ?? OUTSIDE), allocations }, fn);
}

/** Removes `tensor` from the innermost scope, since modules and optimizers outlive scopes. */
export function keep(tensor: Owned): void {
  removeFromScope(tensor);
  tensor.watch();
}

/** Removes `tensor`, which is being disposed, from the innermost scope. */
export function removeFromScope(tensor: Owned): void {
  frames.getStore()?.tensors?.delete(tensor);
}

function transfer(tensor: Owned, owner: ScopeTensors | undefined): void {
  if (owner === undefined) tensor.watch();
  else owner.own(tensor);
}

/**
 * Returns a function that later runs code with the current modes: gradients, adapters and precision. Tensors that the code
 * makes belong to the innermost surrounding scope that is still open then, and to its checkpoint.
 */
export function captureFrame(): <T>(fn: () => T) => T {
  const frame = frames.getStore() ?? OUTSIDE;
  const precision = readMatmulPrecision();
  // AsyncLocalStorage.snapshot() is equivalent but needs Node 18.16.
  const resume = AsyncResource.bind(<T>(work: () => T): T => work());
  return (fn) => {
    let { tensors, region } = frame;
    while (tensors?.ended) ({ tensors, region } = tensors.outer);
    return resume(() => frames.run({ ...frame, tensors, region, products: precision }, fn));
  };
}

/** Whether gradients are disabled. */
export function isNoGrad(): boolean {
  return (frames.getStore() ?? OUTSIDE).noGrad;
}

/** Whether operations record nothing for backward: gradients are disabled and no checkpoint is open. */
export function recordsNothing(): boolean {
  const { noGrad, region } = frames.getStore() ?? OUTSIDE;
  return noGrad && region === 0;
}

/**
 * Runs `fn` and disposes every tensor that it made, except tensors reachable from its result, which belong to the outer
 * scope. If `fn` throws, all of them are disposed.
 */
export function scope<T>(fn: () => T): T {
  checkCallable("scope", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  const tensors = new ScopeTensors(outer);
  return settle(
    tensors,
    () => frames.run({ ...outer, tensors }, fn),
    (result) => release(tensors, findReachable(result, tensors), outer.tensors),
    () => release(tensors, new Set(), outer.tensors),
  );
}

/** Runs `fn` without recording operations for backward. */
export function noGrad<T>(fn: () => T): T {
  checkCallable("noGrad", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  return frames.run({ ...outer, noGrad: true }, fn);
}

/**
 * Runs `fn` with every layer in eval mode without changing `training`, so that concurrent work on the same model, such as a
 * training run between two steps, keeps its dropout. Does not merge adapters.
 */
export function runEvaluating<T>(fn: () => T): T {
  const outer = frames.getStore() ?? OUTSIDE;
  return frames.run({ ...outer, evaluating: true }, fn);
}

/** Whether `layer` currently computes as in training. Dropout and batch statistics depend on this rather than on `training`. */
export function isTraining(layer: { readonly training: boolean }): boolean {
  return layer.training && !(frames.getStore()?.evaluating ?? false);
}

/** Returns the matmul precision of the running code. */
export function readMatmulPrecision(): MatmulPrecision {
  return frames.getStore()?.products ?? products;
}

/**
 * Sets the precision of products with weights, forward and backward, for layers that run from now on. Equivalent to
 * `torch.set_float32_matmul_precision`. Backward, and recomputed checkpoints, use the precision of the recorded forward.
 * Throws `ERR_OPTION`.
 */
export function setMatmulPrecision(precision: MatmulPrecision): void {
  products = checkPrecision("setMatmulPrecision", precision);
}

/** Runs `fn` with another matmul precision. Throws `ERR_OPTION`. */
export function withMatmulPrecision<T>(precision: MatmulPrecision, fn: () => T): T {
  checkCallable("withMatmulPrecision", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  return frames.run({ ...outer, products: checkPrecision("withMatmulPrecision", precision) }, fn);
}

/** Returns the CPU settings of the running code. */
export function cpuUse(): CurrentCpuUse {
  const { threads, priority = "normal" } = frames.getStore()?.cpu ?? cpu;
  const all = countCpuThreads();
  return { threads: threads ?? (priority === "background" ? Math.max(1, all - 1) : all), priority };
}

/**
 * Sets the number of computing threads and their priority in this process or worker. Omitted options return to their
 * defaults. Results are bit-identical for all values. Other users of a shared device keep their settings.
 * Throws `ERR_OPTION`.
 */
export function setCpuUse(use: CpuUse): void {
  cpu = checkCpuUse("setCpuUse", use);
}

/** Runs `fn` with other threads or priority; omitted options keep their values. Throws `ERR_OPTION`. */
export function withCpuUse<T>(use: CpuUse, fn: () => T): T {
  checkCallable("withCpuUse", "fn", fn);
  return runWithCheckedCpuUse(checkCpuUse("withCpuUse", use), fn);
}

/** Like `withCpuUse`, for validated options. */
export function runWithCheckedCpuUse<T>({ threads, priority }: CpuUse, fn: () => T): T {
  const outer = frames.getStore() ?? OUTSIDE;
  const around = outer.cpu ?? cpu;
  const inner = { threads: threads ?? around.threads, priority: priority ?? around.priority };
  return frames.run({ ...outer, cpu: inner }, fn);
}

function checkPrecision(where: string, precision: MatmulPrecision): MatmulPrecision {
  if (MATMUL_PRECISIONS.includes(precision)) return precision;
  throw new LowrankError(
    "ERR_OPTION",
    `${where}: precision must be exact, bf16 or f16, got ${formatValue(precision)}`,
  );
}

/**
 * Runs `fn` and stores only its inputs for backward, which recomputes it (gradient checkpointing, Chen et al. 2016).
 * Recomputation uses the same random masks. Tensors that `fn` makes and does not return are disposed.
 */
export function checkpoint<T>(fn: () => T): T {
  checkCallable("checkpoint", "fn", fn);
  const outer = frames.getStore() ?? OUTSIDE;
  // A nested checkpoint is part of the outer one.
  if (outer.region !== 0 || outer.noGrad) return scope(fn);
  const region = ++regions;
  session().openRegion(region);
  const tensors = new ScopeTensors(outer);
  const end = (reachable: Set<unknown>): void => {
    release(tensors, reachable, outer.tensors);
    session().closeRegion(region);
  };
  return settle(
    tensors,
    () => frames.run({ ...outer, tensors, region }, fn),
    (result) => end(findReachable(result, tensors)),
    () => end(new Set()),
  );
}

/** Runs `fn`, then `done` with its result, or `failed`; for synchronous and asynchronous functions. */
function settle<T>(
  tensors: ScopeTensors,
  fn: () => T,
  done: (result: unknown) => void,
  failed: () => void,
): T {
  let result: T;
  try {
    result = fn();
  } catch (error) {
    failed();
    throw error;
  }
  if (result instanceof Promise) {
    tensors.trackByGc();
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

function release(tensors: ScopeTensors, reachable: Set<unknown>, outer: ScopeTensors | undefined): void {
  const ids = new Uint32Array(tensors.size);
  let count = 0;
  for (const tensor of tensors) {
    if (reachable.has(tensor)) {
      transfer(tensor, outer);
      continue;
    }
    const id = tensor.releaseHandle();
    if (id !== undefined) ids[count++] = id;
  }
  tensors.clear();
  tensors.trackByGc();
  tensors.ended = true;
  // One call for all: a call costs more than freeing a tensor.
  if (count > 0) session().dispose(ids.subarray(0, count));
}

/** Returns everything reachable from `root` through arrays, maps, sets and object properties, stopping at members of `tensors`. */
function findReachable(root: unknown, tensors: ReadonlySet<unknown>): Set<unknown> {
  const seen = new Set<unknown>();
  const todo = [root];
  while (todo.length > 0) {
    const value = todo.pop();
    if (typeof value !== "object" || value === null || seen.has(value) || ArrayBuffer.isView(value)) continue;
    seen.add(value);
    if (tensors.has(value)) continue;
    // Pushed one by one, since the number of call arguments is limited.
    if (value instanceof Map) for (const entry of value) todo.push(...entry);
    else for (const member of value instanceof Set ? value : Object.values(value)) todo.push(member);
  }
  return seen;
}
