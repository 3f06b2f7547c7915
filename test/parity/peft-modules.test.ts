/** Adapters of every kind of layer, in folders written by PEFT: their outputs. 1e-5 as in llama.test.ts. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { lora, safetensors, scope } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { error, goldens, onHost } from "./goldens.js";
import { toy, type Toy } from "./modules.js";

const folders = [
  "text-linear",
  "text-conv1d",
  "text-mixed",
  "text-modules-to-save",
  "text-bias-all",
  "text-bias-lora-only",
  "text-patterns",
  "text-dora",
  "text-lora-bias",
  "text-tokens",
  "image-convs",
  "image-dora",
  "image-lora-bias",
  "image-bias-all",
];

/** Keys that PEFT writes twice by mistake. */
const SPURIOUS = /\.(original_module|modules_to_save)\.bias$/;

async function output(model: Toy, input: Parameters<Toy["forward"]>[0]): Promise<Float32Array> {
  const out = scope(() => model.forward(input));
  const values = (await out.data()) as Float32Array;
  out.dispose();
  return values;
}

function keys(folder: string): string[] {
  const names = safetensors.openWeights(join(folder, "adapter_model.safetensors")).names();
  return names.filter((name) => !SPURIOUS.test(name)).sort();
}

for (const device of testDevices()) {
  for (const name of folders) {
    test(`${name} on ${device}: the output is PEFT's, merged too; saved it has PEFT's keys`, async (t) => {
      const folder = join(goldens, "peft", "modules", name);
      const expected = (await onHost(join(folder, "golden.safetensors")))["output"]?.data ?? [];
      const { model, input } = toy(name.split("-")[0] as string, device);
      const before = await output(model, input);
      await lora.loadAdapter(model, folder);
      const off = error(await output(model, input), expected);
      t.true(off < 1e-5, `the output is off by ${off}`);

      const [saved, again] = [temporary(), temporary()];
      await lora.saveAdapter(model, saved);
      t.deepEqual(keys(saved), keys(folder));
      await lora.merge(model);
      const merged = error(await output(model, input), expected);
      t.true(merged < 1e-5, `merged, the output is off by ${merged}`);
      lora.unload(model);
      t.deepEqual(await output(model, input), before);

      await lora.loadAdapter(model, saved);
      await lora.saveAdapter(model, again);
      for (const file of ["adapter_config.json", "adapter_model.safetensors"])
        t.deepEqual(readFileSync(join(again, file)), readFileSync(join(saved, file)), file);
      await lora.mergeAndUnload(model);
      t.true(error(await output(model, input), expected) < 1e-5);
      model.dispose();
    });
  }
}
