/** Runs a model's forward with one adapter per row of its batch. */
import { tensor } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import { findAdapter, listAdapters, type ModelAdapter } from "./registry.js";
import { findRuns, runWithAdapterPerRow, type AdapterPerRow } from "../layers/rows.js";

/**
 * Runs `forward` of `model` over a batch in which row b uses only the adapter `names[b]`, active or not, merged or not,
 * with that adapter's copies of modules and biases; null is the base. Without names the model runs unchanged. `forward`
 * must be synchronous.
 *
 * Throws `ERR_UNKNOWN_ADAPTER`, listing the loaded adapters; `ERR_SHAPE_MISMATCH` unless there is one name per row.
 */
export function runPerRow<T>(
  model: Module,
  batch: number,
  names: AdapterPerRow | undefined,
  forward: () => T,
): T {
  if (names === undefined) return forward();
  if (names.length !== batch) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `adapterPerRow: there are ${names.length} names for ${batch} rows`,
    );
  }
  const all = listAdapters(model);
  for (const name of names) if (name !== null) findAdapter(model, name, all);
  const changed = divideByRow(all, names);
  try {
    return runWithAdapterPerRow(names, forward);
  } finally {
    for (const [module, original] of changed) {
      if (original === undefined) delete (module as Partial<Forwarded>).forward;
      else Object.defineProperty(module, "forward", original);
    }
  }
}

type Forwarded = Module & { forward(x: Tensor, ...rest: unknown[]): Tensor; bias?: unknown };
type Run = (name: string | null, x: Tensor, rest: unknown[]) => Tensor;

/**
 * Replaces the forward of every module that an adapter has a copy of, or a copy of its bias: it splits the batch into
 * runs of rows and uses each run's copy. Returns the modules and their previous `forward` property, which a user may have
 * assigned.
 */
function divideByRow(
  all: ReadonlyMap<string, ModelAdapter>,
  names: AdapterPerRow,
): [module: Module, own: PropertyDescriptor | undefined][] {
  const runs = new Map<Module, Run>();
  const adapters = [...all.values()];
  const copyIn = (
    kind: "modules" | "biases",
    path: string,
    name: string | null,
  ): Module | Tensor | undefined => (name === null ? undefined : all.get(name)?.[kind].get(path)?.copy);
  for (const [path, { owner, original }] of adapters.flatMap(({ biases }) => [...biases])) {
    const holder = owner as Forwarded;
    runs.set(owner, (name, x, rest) => {
      const standing = holder.bias;
      holder.bias = copyIn("biases", path, name) ?? original;
      try {
        return callPlainForward(owner, x, rest);
      } finally {
        holder.bias = standing;
      }
    });
  }
  for (const [path, { owner, property, original }] of adapters.flatMap(({ modules }) => [...modules])) {
    const base = original as Module;
    const runBase: Run = runs.get(base) ?? ((_, x, rest) => callPlainForward(base, x, rest));
    runs.set((owner as unknown as Record<string, Module>)[property] as Module, (name, x, rest) => {
      const copy = copyIn("modules", path, name);
      return copy === undefined ? runBase(name, x, rest) : callPlainForward(copy as Module, x, rest);
    });
  }
  const changed: [Module, PropertyDescriptor | undefined][] = [];
  for (const [module, run] of runs) {
    const value = (x: Tensor, ...rest: unknown[]): Tensor =>
      joinRows(
        findRuns(names, x.shape[0] as number).map(({ name, start, count }) =>
          runWithAdapterPerRow([name], () => run(name, x.slice(0, start, start + count), rest)),
        ),
      );
    const original = Object.getOwnPropertyDescriptor(module, "forward");
    REPLACED.set(value, findPlainForward(module));
    changed.push([module, original]);
    Object.defineProperty(module, "forward", { value, configurable: true });
  }
  return changed;
}

type Forward = (x: Tensor, ...rest: unknown[]) => Tensor;

/** The original forward of each replaced one. */
const REPLACED = new WeakMap<Forward, Forward>();

/** Returns the forward of `module` without splitting: an assigned one, or its class's. */
function findPlainForward(module: Module): Forward {
  const { forward } = module as Forwarded;
  return REPLACED.get(forward) ?? forward;
}

function callPlainForward(module: Module, x: Tensor, rest: unknown[]): Tensor {
  return findPlainForward(module).call(module, x, ...rest);
}

function joinRows(parts: readonly Tensor[]): Tensor {
  const [first, ...rest] = parts as [Tensor, ...Tensor[]];
  return rest.length === 0 ? first : first.concat(rest, 0);
}

/**
 * Returns the loss of a batch with several adapters: the sum over adapters of the mean over their counted tokens.
 * `losses` and `counted` are [B, T]; a token that is not counted has a loss of 0.
 */
export function computeLossPerAdapter(losses: Tensor, counted: Tensor, names: AdapterPerRow): Tensor {
  const [byRow, countByRow] = [losses.sum(1), counted.sum(1)];
  const means = [...new Set(names)].map((name) => {
    const weights = names.map((rowName) => (rowName === name ? 1 : 0));
    const pick = tensor(weights, { device: losses.device });
    return byRow.mul(pick).sum().div(countByRow.mul(pick).sum());
  });
  const [first, ...rest] = means as [Tensor, ...Tensor[]];
  return rest.reduce((sum, mean) => sum.add(mean), first);
}
