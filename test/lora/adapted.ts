/** A tiny model with adapters that change its output, and the logits that it gives. */
import {
  loadModel,
  lora,
  noGrad,
  randn,
  safetensors,
  scope,
  tensor,
  type CausalLM,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import type { TestDevice } from "../devices.js";
import { tinyModel } from "../hashed.js";

export const base = tinyModel();

export const attention: lora.InjectOptions = { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"] };

/** Returns a model with named adapters, each with different values. */
export async function adapted(
  device: TestDevice,
  options: Record<string, lora.InjectOptions>,
): Promise<CausalLM> {
  const model = (await loadModel(base, { device })) as CausalLM;
  for (const [name, one] of Object.entries(options)) {
    await lora.inject(model, { ...one, name });
    shake(model, name);
  }
  return model;
}

/** Randomises every tensor of an adapter. */
export function shake(model: CausalLM, name = "default"): void {
  noGrad(() =>
    scope(() => {
      for (const [key, one] of collectAdapterState(model, name))
        if (!key.endsWith("base_layer.weight")) one.copy(randn(one.shape, { device: model.device }).mul(0.3));
    }),
  );
}

export async function logits(model: CausalLM): Promise<Float32Array> {
  const ids = Int32Array.from({ length: 12 }, (_, i) => (i * 37) % 97);
  const out = scope(() => model.forward(tensor(ids, { shape: [2, 6], device: model.device })).logits);
  const data = (await out.data()) as Float32Array;
  out.dispose();
  return data;
}

/** Returns the largest difference, relative to the largest value. */
export function apart(a: Float32Array, b: Float32Array): number {
  const largest = a.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  return a.reduce((m, v, i) => Math.max(m, Math.abs(v - (b[i] as number))), 0) / largest;
}

/** Returns the shapes of the tensors in a safetensors file. */
export function shapesIn(file: string): Record<string, number[]> {
  const opened = safetensors.openWeights(file);
  return Object.fromEntries(opened.names().map((name) => [name, opened.info(name).shape]));
}
