/**
 * Forward for classes that do not compute W·x + b: their forward runs with W + ΔW as the weight, so the result equals the
 * merged layer's. Source: loralib's ConvLoRA, which also adds the product to the weight.
 */
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";
import { isTraining } from "../../tensor/scope.js";
import { computeAdaptedWeight } from "./adapted-weight.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { findAdapterPerRow } from "./rows.js";
import { listActiveShares, computeBias, addStart, type Share } from "./shares.js";

const running = new WeakSet<AnyLoRALayer>();

/** Runs `forward` of `layer` with the active adapters added to the weight. */
export function computeOverWeight<R>(layer: AnyLoRALayer, forward: () => R): R {
  // A recursive call uses the weight that is already set.
  if (running.has(layer)) return forward();
  if (!layer.adapts) return layer.runWithBase(forward);
  const shares = resolveShares(layer);
  const { name } = layer.constructor;
  if (isTraining(layer) && shares.some(({ adapter }) => adapter.loraDropout > 0))
    throw createRefusal(ADAPTER_REFUSALS.ownForwardDropout, "forward", name);
  const original = { weight: layer.weight, bias: layer.bias };
  const [base, bias] = [layer.baseWeight, layer.baseBias];
  const weight = shares.length === 0 ? base : computeAdaptedWeight(layer, shares).to(base.dtype);
  const shift = computeBias(bias, shares);
  layer.weight = weight;
  if (original.bias !== undefined || shift !== null) layer.bias = shift;
  running.add(layer);
  try {
    const y = forward();
    if (isPromise(y)) {
      y.then(undefined, () => {});
      throw createRefusal(ADAPTER_REFUSALS.ownForwardAsync, "forward", name);
    }
    if (layer.weight !== weight) throw createRefusal(ADAPTER_REFUSALS.ownForwardAssigns, "forward", name);
    return y;
  } finally {
    running.delete(layer);
    layer.weight = original.weight;
    if (original.bias !== undefined || shift !== null) layer.bias = original.bias;
  }
}

/** Returns the adapters that apply to all rows. Throws for one adapter per row unless all rows have the same one. */
function resolveShares(layer: AnyLoRALayer): Share[] {
  const names = findAdapterPerRow();
  if (names === undefined) return listActiveShares(layer);
  const found = new Set(names.map((name) => (name !== null && layer.adapters.has(name) ? name : null)));
  if (found.size > 1)
    throw createRefusal(ADAPTER_REFUSALS.ownForwardRows, "adapterPerRow", layer.constructor.name);
  const [name] = found;
  const adapter = name === null || name === undefined ? undefined : layer.adapters.get(name);
  return adapter === undefined ? [] : addStart({ adapter, scaling: adapter.scaling });
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}
