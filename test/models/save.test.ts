/** A model's folder: its shards, the files saved with the weights, and values outside the range of half storage. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, sep } from "node:path";

import test from "ava";

import { loadModel, saveModel, tensor, type Tensor } from "../../src/index.js";
import { temporary, tinyModel } from "../hashed.js";

const device = "cpu";

test("shards are no larger than the given size, and their index adds up", async (t) => {
  const model = await loadModel(tinyModel(), { device });
  const folder = join(temporary(), "saved");
  await saveModel(model, folder, { maxShardBytes: 20_000 });
  const { metadata, weight_map } = JSON.parse(
    readFileSync(join(folder, "model.safetensors.index.json"), "utf8"),
  ) as { metadata: { total_size: number }; weight_map: Record<string, string> };
  const files = [...new Set(Object.values(weight_map))].sort();
  t.deepEqual(
    files,
    readdirSync(folder)
      .filter((name) => name.endsWith(".safetensors"))
      .sort(),
  );
  t.true(files.length > 3);
  // The limit does not count a header, which is some hundred bytes a tensor.
  for (const file of files) t.true(statSync(join(folder, file)).size < 20_000 + 2000, file);
  const bytes = Object.values(model.stateDict()).reduce((n, one) => n + one.size * 4, 0);
  t.is(metadata.total_size, bytes);
  t.deepEqual(Object.keys(weight_map).sort(), Object.keys(model.stateDict()).sort());
  const again = await loadModel(folder, { device });
  for (const [name, one] of Object.entries(again.stateDict()))
    t.deepEqual(await one.data(), await (model.stateDict()[name] as Tensor).data(), name);
  model.dispose();
  again.dispose();
});

test("the tokenizer's files, the generation configuration and the chat template are saved, too", async (t) => {
  const from = tinyModel();
  const files: Record<string, string> = {
    "tokenizer_config.json": '{ "bos_token": "<s>" }',
    "special_tokens_map.json": "{}",
    "added_tokens.json": "{}",
    "generation_config.json": '{ "eos_token_id": [2, 1] }',
    "tokenizer.model": "bytes",
    "merges.txt": "#version: 0.2",
    "chat_template.jinja": "{{ messages[0].content }}",
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(from, name), text);
  writeFileSync(join(from, "README.md"), "");
  const model = await loadModel(from, { device });
  const folder = join(temporary(), "saved");
  await saveModel(model, folder, { dtype: "bf16" });
  for (const [name, text] of Object.entries(files))
    t.is(readFileSync(join(folder, name), "utf8"), text, name);
  t.false(existsSync(join(folder, "README.md")));
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
  const before = JSON.parse(readFileSync(join(from, "config.json"), "utf8")) as Record<string, unknown>;
  t.deepEqual(config, { ...before, torch_dtype: "bfloat16" });
  if (model.tokenizer !== undefined) model.tokenizer.chatTemplate = "{{ messages | length }}";
  await saveModel(model, folder, { overwrite: true });
  t.is(readFileSync(join(folder, "chat_template.jinja"), "utf8"), "{{ messages | length }}");
  model.dispose();
});

test("a folder's name may end in a separator, and a link to a folder stays a link", async (t) => {
  const model = await loadModel(tinyModel(), { device });
  const above = temporary();
  await saveModel(model, join(above, "saved") + sep);
  t.deepEqual(readdirSync(above), ["saved"]);
  const elsewhere = join(temporary(), "runs");
  mkdirSync(elsewhere);
  const link = join(elsewhere, "latest");
  // A junction, since Windows allows every user to create one.
  symlinkSync(join(above, "saved"), link, "junction");
  writeFileSync(join(above, "saved", "model.safetensors"), "old");
  await saveModel(model, link, { overwrite: true });
  t.true(lstatSync(link).isSymbolicLink());
  t.deepEqual([readdirSync(above), readdirSync(elsewhere)], [["saved"], ["latest"]]);
  const again = await loadModel(join(above, "saved"), { device });
  for (const [name, one] of Object.entries(again.stateDict()))
    t.deepEqual(await one.data(), await (model.stateDict()[name] as Tensor).data(), name);
  again.dispose();
  model.dispose();
});

test("a value beyond f16's range is refused by name, and nothing is written", async (t) => {
  const model = await loadModel(tinyModel(), { device });
  const weight = model.stateDict()["model.layers.1.mlp.up_proj.weight"] as Tensor;
  const values = new Float32Array(weight.size).fill(0.5);
  values[77] = -70_000;
  weight.copy(tensor(values, { shape: weight.shape, device }));
  const folder = join(temporary(), "saved");
  await t.throwsAsync(saveModel(model, folder, { dtype: "f16" }), {
    code: "ERR_DTYPE",
    message:
      /model\.layers\.1\.mlp\.up_proj\.weight contains 70000, beyond f16's maximum of 65,504; store it as bf16/,
  });
  t.deepEqual(readdirSync(dirname(folder)), []);
  model.dispose();
});
