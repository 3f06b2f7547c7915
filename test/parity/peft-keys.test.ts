/** What PEFT saves for a configuration, key for key and shape for shape, what it trains, and its adapter_config.json. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { loadModel, lora, safetensors } from "../../src/index.js";
import { goldenModel, temporary } from "../hashed.js";
import { goldens } from "./goldens.js";

interface Entry {
  name: string;
  model: string;
  modelOverrides: { num_hidden_layers?: number };
  options: Record<string, unknown>;
  config: Record<string, unknown>;
  keys: Record<string, number[]>;
  trainable: string[];
}

const entries = JSON.parse(readFileSync(join(goldens, "peft_keys.json"), "utf8")) as Entry[];

/** LoraConfig's options that `inject` takes. */
const OPTIONS: Record<string, keyof lora.InjectOptions> = {
  r: "r",
  target_modules: "targetModules",
  exclude_modules: "excludeModules",
  layers_to_transform: "layersToTransform",
  layers_pattern: "layersPattern",
  rank_pattern: "rankPattern",
  alpha_pattern: "alphaPattern",
  bias: "bias",
  modules_to_save: "modulesToSave",
  use_rslora: "useRslora",
};

/** With bias "all" and modules_to_save PEFT saves these copies of biases by mistake. */
const SPURIOUS = /\.(original_module|modules_to_save)\.bias$/;

/** Names of what PEFT trains, without the wrappers that it puts around modules. */
function unwrapped(name: string): string {
  return name
    .replace("base_model.model.", "")
    .replace(".base_layer.bias", ".bias")
    .replace(".modules_to_save.default.", ".");
}

const modelOf = ({ model, modelOverrides }: Entry): string =>
  goldenModel(join(goldens, model), modelOverrides);

for (const entry of entries) {
  const beyond = Object.keys(entry.options).filter((key) => !(key in OPTIONS));
  if (beyond.length === 0) {
    test(`${entry.name}: keys, shapes, trained parameters and configuration are PEFT's`, async (t) => {
      const model = await loadModel(modelOf(entry), { device: "cpu" });
      const options = Object.fromEntries(
        Object.entries(entry.options).map(([key, value]) => [OPTIONS[key], value]),
      );
      const report = await lora.inject(model, options);

      const trained = [...model.namedParameters()].filter(([, one]) => one.requiresGrad);
      t.deepEqual(trained.map(([name]) => name).sort(), entry.trainable.map(unwrapped).sort());
      t.is(
        report.trainable,
        trained.reduce((n, [, one]) => n + one.size, 0),
      );

      const folder = temporary();
      await lora.saveAdapter(model, folder);
      const saved = safetensors.openWeights(join(folder, "adapter_model.safetensors"));
      t.deepEqual(
        Object.fromEntries(
          saved
            .names()
            .map((key) => [key, saved.info(key).shape])
            .sort(),
        ),
        Object.fromEntries(
          Object.entries(entry.keys)
            .filter(([key]) => !SPURIOUS.test(key))
            .sort(),
        ),
      );
      t.deepEqual(
        comparable(JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8"))),
        comparable(entry.config),
      );
      model.dispose();
    });
  } else {
    test(`${entry.name}: ${beyond.join(", ")} is refused by name`, async (t) => {
      const model = await loadModel(modelOf(entry), { device: "cpu" });
      const camel = (key: string): string =>
        key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
      const asked = Object.fromEntries(
        Object.entries(entry.options).map(([key, value]) => [OPTIONS[key] ?? camel(key), value]),
      );
      const injected = await t.throwsAsync(lora.inject(model, asked));
      t.is((injected as { code?: string }).code, "ERR_OPTION");
      t.true(
        beyond.some((key) => injected.message.includes(camel(key))),
        injected.message,
      );

      const folder = temporary();
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(entry.config));
      const loaded = await t.throwsAsync(lora.loadAdapter(model, folder));
      t.is((loaded as { code?: string }).code, "ERR_FILE_FORMAT");
      t.true(
        beyond.some((key) => loaded.message.includes(`${key} is `)),
        loaded.message,
      );
      t.deepEqual(lora.adapters(model), []);
      model.dispose();
    });
  }
}

/** A configuration without what names the place or the version; lists of names are sets. */
function comparable({
  peft_version: _version,
  base_model_name_or_path: _base,
  ...config
}: Record<string, unknown>): unknown {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [
      key,
      Array.isArray(value) ? [...(value as string[])].sort() : value,
    ]),
  );
}
