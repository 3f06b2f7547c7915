/** Adapter folders written by PEFT: their logits, and the errors for broken ones. 1e-5 as in llama.test.ts. */
import { cpSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  loadModel,
  lora,
  safetensors,
  scope,
  tensor,
  zeros,
  type CausalLM,
  type Tensor,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { goldenModel, temporary } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

const folders = [
  "bias-all",
  "bias-lora-only",
  "modules-to-save",
  "rslora",
  "embedding",
  "trainable-tokens",
  "tied-trainable-tokens",
];
const base = goldenModel(join(goldens, "llama-untied-llama3"));
const tied = goldenModel(join(goldens, "llama-tied"));
const folderOf = (name: string): string => join(goldens, "peft", name);

async function logits(model: CausalLM, { data, shape }: Golden): Promise<Float32Array> {
  const out = scope(() => model.forward(tensor(data, { shape, dtype: "i32", device: model.device })).logits);
  const values = (await out.data()) as Float32Array;
  out.dispose();
  return values;
}

for (const device of testDevices()) {
  for (const name of folders) {
    test(`${name} on ${device}: the logits are PEFT's, and the base's after unloading`, async (t) => {
      const golden = await onHost(join(folderOf(name), "golden.safetensors"));
      const ids = golden["ids"] as Golden;
      const model = await loadModel<"causal-lm">(name.startsWith("tied-") ? tied : base, { device });
      const before = await logits(model, ids);
      await lora.loadAdapter(model, folderOf(name));
      const off = error(await logits(model, ids), golden["logits"]?.data ?? []);
      t.log(`off by ${off.toExponential(1)}`);
      t.true(off < 1e-5, `the logits are off by ${off}`);
      t.deepEqual(
        [...model.parameters()].filter((one) => one.requiresGrad),
        [],
        "by default loading trains nothing",
      );

      await lora.merge(model);
      const merged = error(await logits(model, ids), golden["logits"]?.data ?? []);
      t.true(merged < 1e-5, `merged, the logits are off by ${merged}`);
      t.deepEqual(await logits(lora.unload(model), ids), before);
      model.dispose();
    });
  }
}

/** Ways to break a folder, the error code, and the names in the message. */
const broken: Record<
  string,
  { folder: string; code: string; names: RegExp; act: (dir: string) => void | Promise<void> }
> = {
  "an extra key": {
    folder: "bias-all",
    code: "ERR_UNMATCHED_KEY",
    names: /not of this model: .*layers\.7\.self_attn\.q_proj\.lora_A\.weight/,
    act: (dir) =>
      rewritten(
        dir,
        (tensors) =>
          (tensors["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = zeros([2, 48], {
            device: "cpu",
          })),
      ),
  },
  "a missing key": {
    folder: "modules-to-save",
    code: "ERR_UNMATCHED_KEY",
    names: /missing: base_model\.model\.lm_head\.weight/,
    act: (dir) => rewritten(dir, (tensors) => delete tensors["base_model.model.lm_head.weight"]),
  },
  "a wrong shape": {
    folder: "rslora",
    code: "ERR_SHAPE_MISMATCH",
    names: /layers\.1\.mlp\.down_proj\.lora_B\.weight is \[48, 3\].*\[48, 4\]/,
    act: (dir) =>
      rewritten(
        dir,
        (tensors) =>
          (tensors["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"] = zeros([48, 3], {
            device: "cpu",
          })),
      ),
  },
  "another embedding": {
    folder: "embedding",
    code: "ERR_UNMATCHED_KEY",
    names: /embed_tokens\.base_layer\.weight differs/,
    act: (dir) =>
      rewritten(
        dir,
        (tensors) =>
          (tensors["base_model.model.model.embed_tokens.base_layer.weight"] = zeros([97, 48], {
            device: "cpu",
          })),
      ),
  },
  "a file cut off": {
    folder: "embedding",
    code: "ERR_FILE_FORMAT",
    names: /adapter_model\.safetensors/,
    act: (dir) => truncateSync(join(dir, "adapter_model.safetensors"), 2000),
  },
  use_dora: {
    folder: "rslora",
    code: "ERR_UNMATCHED_KEY",
    names: /lora_magnitude_vector/,
    act: (dir) => reconfigured(dir, { use_dora: true }),
  },
  "a start that moves the base": {
    folder: "rslora",
    code: "ERR_FILE_FORMAT",
    names: /init_lora_weights is "pissa"/,
    act: (dir) => reconfigured(dir, { init_lora_weights: "pissa" }),
  },
  "an unknown key": {
    folder: "rslora",
    code: "ERR_FILE_FORMAT",
    names: /use_magic/,
    act: (dir) => reconfigured(dir, { use_magic: 2 }),
  },
  "targets of another model": {
    folder: "rslora",
    code: "ERR_NO_TARGETS",
    names: /c_attn.*q_proj/s,
    act: (dir) => reconfigured(dir, { target_modules: ["c_attn"] }),
  },
  "a configuration that is not JSON": {
    folder: "rslora",
    code: "ERR_FILE_FORMAT",
    names: /adapter_config\.json/,
    act: (dir) => writeFileSync(join(dir, "adapter_config.json"), "{"),
  },
};

async function rewritten(dir: string, change: (tensors: Record<string, Tensor>) => unknown): Promise<void> {
  const file = join(dir, "adapter_model.safetensors");
  const host = await onHost(file);
  const tensors = Object.fromEntries(
    Object.entries(host).map(([key, { data, shape }]) => [key, tensor(data, { shape, device: "cpu" })]),
  );
  change(tensors);
  await safetensors.save(file, tensors);
  for (const one of Object.values(tensors)) one.dispose();
}

function reconfigured(dir: string, change: Record<string, unknown>): void {
  const file = join(dir, "adapter_config.json");
  writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, "utf8")) as object), ...change }));
}

for (const device of testDevices()) {
  // Serial, since each counts the remaining bytes.
  for (const [what, { folder, code, names, act }] of Object.entries(broken)) {
    test.serial(`${what} on ${device} is ${code}, and the model does not change`, async (t) => {
      const dir = temporary();
      cpSync(folderOf(folder), dir, { recursive: true });
      await act(dir);
      const ids = (await onHost(join(dir, "golden.safetensors")))["ids"] as Golden;
      const model = await loadModel<"causal-lm">(base, { device });
      await lora.inject(model, { name: "other", r: 2, bias: "all", modulesToSave: ["lm_head"] });
      const before = await logits(model, ids);
      const [bytes, trained] = [(await atRest(device)).live, trainable(model)];
      const failure = await t.throwsAsync(lora.loadAdapter(model, dir));
      t.is((failure as { code?: string }).code, code, failure.message);
      t.regex(failure.message, names);
      t.deepEqual(lora.adapters(model), ["other"]);
      t.deepEqual(trainable(model), trained);
      t.is((await atRest(device)).live, bytes, "live bytes");
      t.deepEqual(await logits(model, ids), before);
      model.dispose();
    });
  }
}

function trainable(model: CausalLM): string[] {
  return [...model.namedParameters()].filter(([, one]) => one.requiresGrad).map(([name]) => name);
}
