/** `lowrank merge` and `lowrank export`: their output computes the same as the adapter. */
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { loadModel, lora, saveModel } from "../../src/index.js";
import { readGguf } from "../gguf/file.js";
import { ggufModelFile } from "../gguf/models.js";
import { temporary } from "../hashed.js";
import { adapted, apart, attention, base, logits } from "../lora/adapted.js";
import { ONE_LINE, runHere } from "./lowrank.js";

test.serial("a merged model as a folder: storage, shards, and the logits of the adapter", async (t) => {
  const model = await adapted("cpu", { default: attention });
  const [adapter, folder] = [temporary(), join(temporary(), "merged")];
  await lora.saveAdapter(model, adapter);
  const merging = ["merge", "--adapter", adapter, "--model", base, "--output", folder];
  const { status, stdout, stderr } = await runHere(...merging, "--dtype", "bf16", "--max-shard-size", "20KB");
  t.is(status, 0, stderr);
  t.is(stdout, `merged model ${folder}\n`);
  t.true(readdirSync(folder).filter((name) => /^model-\d+-of-\d+\.safetensors$/.test(name)).length > 1);
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as { torch_dtype: string };
  t.is(config.torch_dtype, "bfloat16");
  t.true(existsSync(join(folder, "tokenizer.json")));
  const merged = await loadModel<"causal-lm">(folder, { device: "cpu" });
  t.is(merged.lm_head.weight.dtype, "bf16");
  // Weights have eight bits, over two layers.
  t.true(apart(await logits(model), await logits(merged)) < 0.05);
  model.dispose();
  merged.dispose();
});

test.serial(
  "with f32 output merged weights are rounded to f32, for any storage type of the model",
  async (t) => {
    const model = await adapted("cpu", { default: attention });
    const [half, adapter, folder] = [join(temporary(), "half"), temporary(), join(temporary(), "merged")];
    await lora.saveAdapter(model, adapter);
    lora.unload(model);
    await saveModel(model, half, { dtype: "bf16" });
    model.dispose();
    const merging = ["merge", "--adapter", adapter, "--model", half, "--output", folder, "--dtype", "f32"];
    const { status, stderr } = await runHere(...merging);
    t.is(status, 0, stderr);
    const own = await loadModel<"causal-lm">(half, { device: "cpu", dtype: "f32" });
    await lora.loadAdapter(own, adapter);
    const merged = await loadModel<"causal-lm">(folder, { device: "cpu" });
    t.true(apart(await logits(own), await logits(merged)) < 1e-5);
    own.dispose();
    merged.dispose();
  },
);

test.serial("a merged model as GGUF, by --format or by its name", async (t) => {
  const model = await adapted("cpu", { default: attention });
  const [adapter, folder] = [temporary(), temporary()];
  await lora.saveAdapter(model, adapter);
  model.dispose();
  const own = join(folder, "stories");
  const merging = ["merge", "--adapter", adapter, "--output"];
  const stories = process.env["LOWRANK_STORIES260K"];
  // llama.cpp does not support the tiny model's tokenizer.
  const refused = await runHere(...merging, join(folder, "m.gguf"), "--model", base);
  t.is(refused.status, 1);
  t.regex(refused.stderr, /tokenizer of .* cannot be written in a model as GGUF/);
  t.regex(refused.stderr, ONE_LINE);
  t.deepEqual(readdirSync(folder), []);
  if (stories === undefined) return;
  const real = await loadModel<"causal-lm">(stories, { device: "cpu" });
  await lora.inject(real, attention);
  const of = temporary();
  await lora.saveAdapter(real, of);
  real.dispose();
  for (const [output, more, type] of [
    [own, ["--format", "gguf", "--dtype", "q8_0"], "Q8_0"],
    [`${own}.gguf`, ["--dtype", "f16"], "F16"],
  ] as const) {
    const { status, stderr } = await runHere("merge", "--adapter", of, "--output", output, ...more);
    t.is(status, 0, stderr);
    t.is(readGguf(output).tensors["blk.0.attn_q.weight"]?.type, type);
    if (type === "Q8_0") t.regex(stderr, /stored as f16, because their row size is not a multiple/);
  }
});

test.serial("an adapter as GGUF: the model that the adapter names, or --model", async (t) => {
  const model = await adapted("cpu", { default: attention });
  const [adapter, output] = [temporary(), join(temporary(), "adapter.gguf")];
  await lora.saveAdapter(model, adapter);
  model.dispose();
  const exporting = ["export", "--adapter", adapter, "--format", "gguf", "--output"];
  t.is((await runHere(...exporting, output)).status, 0);
  t.is(Object.keys(readGguf(output).tensors).length, 2 * 2 * 2);
  const again = await runHere(...exporting, output);
  t.is(again.status, 1);
  t.regex(again.stderr, /adapter\.gguf exists/);
  t.is((await runHere(...exporting, `${output}2`, "--model", base)).status, 0);
  t.deepEqual(readFileSync(`${output}2`), readFileSync(output));
});

test.serial("an adapter of a GGUF file's model as GGUF: with the file that it names", async (t) => {
  const file = ggufModelFile("llama", "q4_0", { size: 64, positions: 256 });
  const model = await loadModel<"causal-lm">(file, { device: "cpu" });
  await lora.inject(model, attention);
  const [adapter, output] = [temporary(), join(temporary(), "adapter.gguf")];
  await lora.saveAdapter(model, adapter);
  model.dispose();
  const exporting = ["export", "--adapter", adapter, "--format", "gguf", "--output"];
  const own = await runHere(...exporting, output);
  t.is(own.status, 0, own.stderr);
  t.is((await runHere(...exporting, `${output}2`, "--model", file)).status, 0);
  t.deepEqual(readFileSync(`${output}2`), readFileSync(output));

  rmSync(file);
  const gone = await runHere(...exporting, `${output}3`);
  t.is(gone.status, 1);
  t.regex(gone.stderr, /model\.gguf, is not here; give the model with --model/);
  t.regex(gone.stderr, ONE_LINE);
});
