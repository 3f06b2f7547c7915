/** Recommendations of `lowrank export --format gguf` for adapters that llama.cpp does not support. */
import { cpSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import {
  GPT2LMHeadModel,
  LlamaForCausalLM,
  loadModel,
  lora,
  saveModel,
  type CausalLM,
} from "../../src/index.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { runHere as run } from "../cli/lowrank.js";
import { temporary } from "../hashed.js";

/** Saves a model with random weights into a folder with the tokenizer of the packaged model. */
async function drawn(make: () => CausalLM): Promise<string> {
  const folder = join(temporary(), "model");
  const model = make();
  await saveModel(model, folder);
  model.dispose();
  cpSync(join(locateDefaultModel(), "tokenizer.json"), join(folder, "tokenizer.json"));
  return folder;
}

const tied = locateDefaultModel();
const biased = await drawn(() =>
  LlamaForCausalLM.fromConfig(
    {
      vocab_size: 2048,
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      max_position_embeddings: 64,
      attention_bias: true,
      eos_token_id: 0,
    },
    { device: "cpu" },
  ),
);
const gpt2 = await drawn(() =>
  GPT2LMHeadModel.fromConfig(
    {
      vocab_size: 2048,
      n_embd: 32,
      n_head: 2,
      n_layer: 1,
      n_positions: 64,
      bos_token_id: 0,
      eos_token_id: 0,
    },
    { device: "cpu" },
  ),
);

const MERGED: [key: string, options: lora.InjectOptions, folder: string][] = [
  ["dora", { targetModules: ["q_proj"], useDora: true }, tied],
  ["biases", { targetModules: ["q_proj"], bias: "all" }, biased],
  ["factorBiases", { targetModules: ["q_proj"], loraBias: true }, biased],
  ["modulesToSave", { targetModules: ["q_proj"], modulesToSave: ["lm_head"] }, tied],
  ["tokens", { targetModules: ["q_proj"], trainableTokenIndices: [1, 2] }, tied],
  ["tied", { targetModules: ["embed_tokens"] }, tied],
  ["layers", { targetModules: ["wpe"] }, gpt2],
];
for (const [key, options, folder] of MERGED) {
  test.serial(`an adapter that llama.cpp does not support is merged into a GGUF file: ${key}`, async (t) => {
    const model = await loadModel<"causal-lm">(folder, { device: "cpu" });
    await lora.inject(model, { r: 2, ...options });
    const adapter = join(temporary(), "adapter");
    await lora.saveAdapter(model, adapter);
    model.dispose();
    const common = ["--adapter", adapter, "--model", folder];
    const refused = await run(
      "export",
      ...common,
      "--format",
      "gguf",
      "--output",
      join(temporary(), "a.gguf"),
    );
    t.is(refused.status, 1);
    const [, command] =
      /write that: lowrank (merge --format gguf)(?:; else keep PEFT's folder)?$/m.exec(refused.stderr) ?? [];
    t.truthy(command, refused.stderr);
    const output = join(temporary(), "m.gguf");
    const merged = await run(...(command as string).split(" "), ...common, "--output", output);
    t.is(merged.status, 0, merged.stderr);
    t.is((await run("generate", "--model", output, "--prompt", "a", "--max-tokens", "1")).status, 0);
    // PEFT's folder, which exists already, loads.
    const kept = await run("generate", ...common, "--prompt", "a", "--max-tokens", "1", "--device", "cpu");
    t.is(kept.status, 0, kept.stderr);
  });
}

test.serial("biases of B if the layers have none: PEFT's folder is kept", async (t) => {
  const model = await loadModel<"causal-lm">(tied, { device: "cpu" });
  await lora.inject(model, { r: 2, targetModules: ["q_proj"], loraBias: true });
  const adapter = join(temporary(), "adapter");
  await lora.saveAdapter(model, adapter);
  model.dispose();
  const common = ["--adapter", adapter, "--model", tied];
  const refused = await run("export", ...common, "--format", "gguf", "--output", join(temporary(), "a.gguf"));
  t.regex(refused.stderr, /where the layers have biases, merge .*; else keep PEFT's folder$/m);
  const kept = await run("generate", ...common, "--prompt", "a", "--max-tokens", "1", "--device", "cpu");
  t.is(kept.status, 0, kept.stderr);
});
