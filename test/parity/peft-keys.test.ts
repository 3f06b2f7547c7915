/** PEFT's keys and shapes for a configuration, its trained parameters, and its adapter_config.json. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { loadModel, lora, nn, safetensors, type Tensor } from "../../src/index.js";
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

/** Returns `inject`'s name for an option of LoraConfig. */
const camel = (key: string): string => key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/** With bias "all" and modules_to_save PEFT saves these copies of biases by mistake. */
const SPURIOUS = /\.(original_module|modules_to_save)\.bias$/;

/** Returns the name of a parameter without the wrappers that PEFT adds around modules. */
function unwrapped(name: string): string {
  return name
    .replace("base_model.model.", "")
    .replace(".base_layer.bias", ".bias")
    .replace(".modules_to_save.default.", ".");
}

/** Modules named like parameters and adapters. */
class Inner extends nn.Module {
  lora = new nn.Linear(4, 4);
  weight = new nn.Linear(4, 4);
  default = new nn.Linear(4, 4);
  bias = new nn.Linear(4, 4, { bias: false });
  override forward(x: Tensor): Tensor {
    return this.bias.forward(this.default.forward(this.weight.forward(this.lora.forward(x))));
  }
}

class Odd extends nn.Module {
  first = new Inner();
  second = new Inner();
  bias = new nn.Linear(4, 2);
  override forward(x: Tensor): Tensor {
    return this.bias.forward(this.second.forward(this.first.forward(x)));
  }
}

async function modelOf({ model, modelOverrides }: Entry): Promise<nn.Module> {
  if (model === "odd-names") return new Odd();
  return loadModel(goldenModel(join(goldens, model), modelOverrides), { device: "cpu" });
}

for (const entry of entries) {
  test(`${entry.name}: keys, shapes, trained parameters and configuration are PEFT's`, async (t) => {
    const model = await modelOf(entry);
    const options = Object.fromEntries(
      Object.entries(entry.options).map(([key, value]) => [camel(key), value]),
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
}

/** Unsupported options that change an adapter. */
const BEYOND: Record<string, unknown> = {
  alora_invocation_tokens: [3, 4],
  arrow_config: { top_k: 2 },
  init_lora_weights: "pissa",
  kasa_config: { beta: 1e-4 },
  layer_replication: [[0, 2]],
  megatron_config: { tensor_model_parallel_size: 1 },
  monteclora_config: { num_samples: 8 },
  target_parameters: ["mlp.experts"],
  unheard_of: true,
  use_bdlora: { nblocks: 2 },
  use_qalora: true,
  velora_config: { num_groups: 2 },
};

for (const [key, value] of Object.entries(BEYOND)) {
  test(`${key} in a configuration is refused by name`, async (t) => {
    const [entry] = entries as [Entry];
    const model = await modelOf(entry);
    const folder = temporary();
    const config = { ...entry.config, [key]: value };
    writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(config));
    await t.throwsAsync(lora.loadAdapter(model, folder), {
      code: "ERR_FILE_FORMAT",
      message: new RegExp(`adapter_config.json: .*\\(${key} is `),
    });
    t.deepEqual(lora.adapters(model), []);
    model.dispose();
  });
}

/** Returns a configuration without the path, the version and Python classes; lists of names are sets. */
function comparable({
  peft_version: _version,
  base_model_name_or_path: _base,
  auto_mapping: _class,
  ...config
}: Record<string, unknown>): unknown {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [
      key,
      Array.isArray(value) ? [...(value as string[])].sort() : value,
    ]),
  );
}
