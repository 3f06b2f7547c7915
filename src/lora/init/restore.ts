/** Restores the start of an adapter from a file that includes it. */
import { session } from "../../native/binding.js";
import { Embedding } from "../../nn/embedding.js";
import type { Module } from "../../nn/module.js";
import { keep, noGrad, scope } from "../../tensor/scope.js";
import { recordOp, type Tensor } from "../../tensor/tensor.js";
import { describeRanks } from "../options/exact.js";
import { computeScaling, type Adapter } from "../layers/layer.js";
import { findAdapter } from "../adapter/registry.js";
import type { InitLoraWeights } from "../options/init-weights.js";

/**
 * Splits the plain adapter `name`, with A = [A; A₀] and B = [B, −B₀], into the saved adapter A and B with the start A₀
 * and B₀.
 */
export function restoreStart(model: Module, name: string, init: InitLoraWeights): void {
  const { note, layers } = findAdapter(model, name);
  for (const layer of layers.values()) {
    // An embedding has no such start.
    if (layer instanceof Embedding) continue;
    const adapter = layer.findAdapter(name);
    const r = adapter.r / 2;
    const loraAlpha = adapter.useRslora ? divideByRoot(adapter.loraAlpha) : adapter.loraAlpha / 2;
    const { a, a0, b, b0 } = splitHalves(adapter, r);
    layer.replacePart(name, "A", a);
    layer.replacePart(name, "B", b);
    adapter.start = { loraA: a0, loraB: b0 };
    Object.assign(adapter, { r, loraAlpha, scaling: computeScaling(r, loraAlpha, adapter.useRslora) });
  }
  if (note === undefined) return;
  const adapters = new Map([...layers].map(([path, layer]) => [path, layer.findAdapter(name)]));
  Object.assign(note.options, { initLoraWeights: init, ...describeRanks(adapters) });
}

function splitHalves({ loraA, loraB }: Adapter, r: number): Record<"a" | "a0" | "b" | "b0", Tensor> {
  const parts = noGrad(() =>
    scope(() => ({
      a: copySlice(loraA.slice(0, 0, r)),
      a0: copySlice(loraA.slice(0, r, 2 * r)),
      b: copySlice(loraB.slice(1, 0, r)),
      b0: loraB.slice(1, r, 2 * r).neg(),
    })),
  );
  for (const part of Object.values(parts)) keep(part);
  return parts;
}

/** Copies a slice, which may be a view of a tensor that is disposed later. */
function copySlice(tensor: Tensor): Tensor {
  return recordOp(() => session().unary("copy", tensor.id));
}

/** @internal Returns the number whose product with √2 is `alpha`, exact if it has at most 12 digits. */
export function divideByRoot(alpha: number): number {
  const divided = alpha / Math.SQRT2;
  const short = Number(divided.toPrecision(12));
  return short * Math.SQRT2 === alpha ? short : divided;
}
