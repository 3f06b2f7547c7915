/**
 * The layers compared with PEFT in float64 (README.md): like loralib.test.ts, for DoRA, rsLoRA, biases,
 * convolutions.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { lora, zeros } from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldens } from "./goldens.js";
import { isGolden, type Layer } from "./layer-goldens.js";

interface Sizes {
  in: number;
  out: number;
  n?: number;
  d: number;
  r: number;
  lora_alpha: number;
  use_rslora?: boolean;
  use_dora?: boolean;
  lora_bias?: boolean;
  kernel?: number[];
  stride?: number[];
  padding?: number[];
  dilation?: number[];
  groups?: number;
}

const { layers } = JSON.parse(readFileSync(join(goldens, "peft_layers.json"), "utf8")) as {
  layers: Record<string, Sizes>;
};

function layerOf(sizes: Sizes, device: TestDevice): Layer {
  const { r, lora_alpha: loraAlpha, stride, padding, dilation, groups, kernel } = sizes;
  const { use_rslora: useRslora, use_dora: useDora, lora_bias: loraBias } = sizes;
  const options = { r, loraAlpha, useRslora, useDora, loraBias, device };
  if (sizes.n !== undefined) return new lora.Embedding(sizes.n, sizes.d, options);
  if (kernel === undefined) return new lora.Linear(sizes.in, sizes.out, options);
  const Conv = [lora.Conv1d, lora.Conv2d, lora.Conv3d][kernel.length - 1] as typeof lora.Conv1d;
  const layer = new Conv(sizes.in, sizes.out, kernel, { ...options, stride, padding, dilation, groups });
  if (groups !== undefined) {
    // PEFT's A covers the channels of all groups.
    for (const part of ["A", "B"] as const)
      layer.replacePart("default", part, zeros(layer.computeStoredShape(part, r), { device }));
  }
  return layer;
}

for (const device of testDevices()) {
  for (const [name, sizes] of Object.entries(layers)) {
    test(`${name} on ${device} is PEFT's`, async (t) => {
      const layer = layerOf(sizes, device);
      await isGolden(t, layer, name, "peft_layers.safetensors", device);
      layer.dispose();
    });
  }
}
