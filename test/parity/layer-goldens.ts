/** Compares one layer with its golden: output, every gradient, merged weight and output, ten steps of AdamW. */
import { join } from "node:path";

import type { ExecutionContext } from "ava";

import { noGrad, optim, scope, tensor, type lora, type Tensor } from "../../src/index.js";
import type { TestDevice } from "../devices.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

/** Largest difference relative to a tensor's largest value: a hundred roundings. */
const TOLERANCE = 1e-5;

export type Layer = lora.Linear | lora.Embedding | lora.Conv1d | lora.Conv2d | lora.Conv3d;

/**
 * Compares `layer` with the tensors under `name` in `file`. The golden uses the keys of the layer's state dict;
 * every golden tensor other than parameters and inputs is compared.
 */
export async function isGolden(
  t: ExecutionContext,
  layer: Layer,
  name: string,
  file: string,
  device: TestDevice,
): Promise<void> {
  const host = await onHost(join(goldens, file));
  const golden = (part: string): Golden => host[`${name}.${part}`] as Golden;
  const put = (part: string, requiresGrad = false): Tensor => {
    const { data, shape } = golden(part);
    const dtype = data instanceof Int32Array ? "i32" : "f32";
    return tensor(data, { shape, device, requiresGrad, dtype });
  };
  const off: Record<string, number> = {};
  const compare = async (part: string, ours: Tensor): Promise<void> => {
    t.deepEqual(ours.shape, golden(part).shape, part);
    off[part] = error(await ours.data(), golden(part).data);
  };
  const run = (x: Tensor): Tensor => (layer.forward as (x: Tensor) => Tensor).call(layer, x);

  layer.train();
  const state = layer.stateDict();
  const parts = Object.keys(host)
    .filter((key) => key.startsWith(`${name}.`))
    .map((key) => key.slice(name.length + 1));
  t.deepEqual(
    Object.keys(state).sort(),
    parts.filter((part) => /^(weight|bias|lora_\w+)$/.test(part)).sort(),
  );
  const filled = Object.fromEntries(Object.keys(state).map((key) => [key, put(key)]));
  layer.loadStateDict(filled);

  const input = put("input", `${name}.grad.input` in host);
  const output = run(input);
  await compare("output", output);
  output.mul(put("d_out")).sum().backward();
  const named = (): [string, Tensor][] => Object.entries(layer.stateDict());
  for (const [key, parameter] of named())
    if (`${name}.grad.${key}` in host) await compare(`grad.${key}`, parameter.grad as Tensor);
  if (input.requiresGrad) await compare("grad.input", input.grad as Tensor);
  t.is(layer.weight.grad, null, "the base's weight is frozen");

  if (parts.includes("merged_weight")) {
    t.is(layer.eval(), layer);
    t.true(layer.merged);
    await compare("merged_weight", layer.weight);
    await compare(
      "merged_output",
      noGrad(() => run(input)),
    );
    t.is(layer.train(), layer);
    t.deepEqual(await layer.weight.data(), golden("weight").data, "train() brings the base back to the bit");
  }

  const trained = named().filter(([key]) => `${name}.trained.${key}` in host);
  for (const [key, parameter] of named())
    if (parameter.requiresGrad) parameter.requiresGrad = `${name}.trained.${key}` in host;
  const optimizer = new optim.AdamW(
    trained.map(([, parameter]) => parameter),
    { lr: 0.05, weightDecay: 0.01 },
  );
  optimizer.zeroGrad();
  const [given, target] = [input.detach(), put("d_out")];
  const losses: number[] = [];
  for (let i = 0; i < 10; i++) {
    const loss = scope(() => {
      const difference = run(given).sub(target);
      const mean = difference.mul(difference).mean();
      mean.backward();
      return mean;
    });
    losses.push(await loss.item());
    optimizer.step();
    optimizer.zeroGrad();
  }
  off["losses"] = error(losses, golden("losses").data);
  for (const [key, parameter] of trained) await compare(`trained.${key}`, parameter);

  t.deepEqual(
    Object.keys(off).sort(),
    parts.filter((part) => /^(output|losses|merged_|grad\.|trained\.)/.test(part)).sort(),
  );
  t.log(`furthest off: ${Math.max(...Object.values(off)).toExponential(1)}`);
  for (const [part, one] of Object.entries(off)) t.true(one < TOLERANCE, `${part} is off by ${one}`);
}
