/**
 * The layers against loralib's own, in float64 (README.md): outputs, every gradient, the merged weight. The tensors are
 * tiny, so 1e-5 of the largest value is a hundred roundings; a wrong formula is off by more than a hundredth.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { lora, noGrad, tensor, type Tensor } from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

interface Sizes {
  in: number;
  out: number;
  n: number;
  d: number;
  r: number;
  lora_alpha: number;
  bias?: boolean;
  fan_in_fan_out?: boolean;
}

const { layers } = JSON.parse(readFileSync(join(goldens, "loralib.json"), "utf8")) as {
  layers: Record<string, Sizes>;
};

function layerOf(name: string, device: TestDevice): lora.Linear | lora.Embedding {
  const { r, lora_alpha: loraAlpha, ...sizes } = layers[name] as Sizes;
  if (name === "embedding") return new lora.Embedding(sizes.n, sizes.d, { r, loraAlpha, device });
  return new lora.Linear(sizes.in, sizes.out, {
    r,
    loraAlpha,
    fanInFanOut: sizes.fan_in_fan_out ?? false,
    bias: sizes.bias ?? false,
    device,
  });
}

for (const device of testDevices()) {
  for (const name of ["linear", "linear_fan_in_fan_out", "embedding"]) {
    test(`${name} on ${device} is loralib's`, async (t) => {
      const host = await onHost(join(goldens, "loralib.safetensors"));
      const golden = (part: string): Golden => host[`${name}.${part}`] as Golden;
      const put = (part: string, requiresGrad = false): Tensor => {
        const { data, shape } = golden(part);
        return tensor(data, {
          shape,
          device,
          requiresGrad,
          dtype: data instanceof Int32Array ? "i32" : "f32",
        });
      };
      const off: Record<string, number> = {};
      const compare = async (part: string, ours: Tensor): Promise<void> => {
        t.deepEqual(ours.shape, golden(part).shape, part);
        off[part] = error(await ours.data(), golden(part).data);
      };

      const layer = layerOf(name, device).train();
      const state = layer.stateDict();
      const parts = Object.keys(host)
        .filter((key) => key.startsWith(`${name}.`))
        .map((key) => key.slice(name.length + 1));
      t.deepEqual(
        Object.keys(state).sort(),
        parts.filter((part) => /^(weight|bias|lora_[AB])$/.test(part)).sort(),
      );
      layer.loadStateDict(Object.fromEntries(Object.keys(state).map((key) => [key, put(key)])));

      const input = put("input", `${name}.grad.input` in host);
      const output = layer.forward(input);
      await compare("output", output);
      output.mul(put("d_out")).sum().backward();
      const trained = Object.entries(layer.stateDict()).filter(([key]) => `${name}.grad.${key}` in host);
      for (const [key, parameter] of trained) await compare(`grad.${key}`, parameter.grad as Tensor);
      if (input.requiresGrad) await compare("grad.input", input.grad as Tensor);
      t.is(layer.weight.grad, null, "the base's weight is frozen");

      t.is(layer.eval(), layer);
      t.true(layer.merged);
      await compare("merged_weight", layer.weight);
      await compare(
        "merged_output",
        noGrad(() => layer.forward(input)),
      );
      t.is(layer.train(), layer);
      t.deepEqual(
        await layer.weight.data(),
        golden("weight").data,
        "train() brings the base back to the bit",
      );

      t.deepEqual(
        Object.keys(off).sort(),
        parts.filter((part) => /^(output|merged_|grad\.)/.test(part)).sort(),
      );
      t.log(`furthest off: ${Math.max(...Object.values(off)).toExponential(1)}`);
      for (const [part, one] of Object.entries(off)) t.true(one < 1e-5, `${part} is off by ${one}`);
      layer.dispose();
    });
  }
}
