/**
 * The layers compared with loralib in float64 (README.md): outputs, every gradient, the merged weight, ten steps of
 * AdamW. The tensors are tiny, so 1e-5 of the largest value is a hundred roundings; a wrong formula causes an error
 * above a hundredth.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { lora } from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldens } from "./goldens.js";
import { isGolden } from "./layer-goldens.js";

interface Sizes {
  in: number;
  out: number;
  n?: number;
  d: number;
  r: number;
  lora_alpha: number;
  bias?: boolean;
  fan_in_fan_out?: boolean;
  padding_idx?: number | null;
  enable_lora?: boolean[];
}

const { layers } = JSON.parse(readFileSync(join(goldens, "loralib.json"), "utf8")) as {
  layers: Record<string, Sizes>;
};

function layerOf(sizes: Sizes, device: TestDevice): lora.Linear | lora.Embedding {
  const { r, lora_alpha: loraAlpha, fan_in_fan_out: fanInFanOut, enable_lora: enableLora } = sizes;
  if (sizes.n !== undefined) {
    const paddingIdx = sizes.padding_idx ?? undefined;
    return new lora.Embedding(sizes.n, sizes.d, { r, loraAlpha, device, paddingIdx });
  }
  const options = { r, loraAlpha, device, fanInFanOut, bias: sizes.bias };
  return enableLora === undefined
    ? new lora.Linear(sizes.in, sizes.out, options)
    : new lora.MergedLinear(sizes.in, sizes.out, { ...options, enableLora });
}

for (const device of testDevices()) {
  for (const [name, sizes] of Object.entries(layers)) {
    test(`${name} on ${device} is loralib's`, async (t) => {
      const layer = layerOf(sizes, device);
      await isGolden(t, layer, name, "loralib.safetensors", device);
      layer.dispose();
    });
  }
}
