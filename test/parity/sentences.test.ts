/**
 * Embeddings with the modules of a sentence-transformers folder, and the files that are saved. Goldens:
 * sentences.py.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import test from "ava";

import { loadModel, lora, saveModel, type TextEncoder } from "../../src/index.js";
import { runHere } from "../cli/lowrank.js";
import { testDevices } from "../devices.js";
import { goldenModel, temporary } from "../hashed.js";
import { error, goldens, onHost } from "./goldens.js";

type Files = Record<string, object>;

const place = join(goldens, "sentences");
const { texts, cases } = JSON.parse(readFileSync(join(place, "golden.json"), "utf8")) as {
  texts: string[];
  cases: Record<string, Files>;
};

/** Returns the folder of a case. */
function folderOf(files: Files): string {
  const folder = goldenModel(join(goldens, "families", "bert"), { architectures: ["BertModel"] }, (name) =>
    name.startsWith("bert.") ? name.slice("bert.".length) : "",
  );
  copyFileSync(join(place, "tokenizer.json"), join(folder, "tokenizer.json"));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), JSON.stringify(content));
  }
  return folder;
}

const load = (folder: string, device = "cpu"): Promise<TextEncoder> =>
  loadModel(folder, { device: device as "cpu", task: "feature-extraction", onNotice: () => {} });

for (const device of testDevices()) {
  test(`on ${device} vectors are sentence-transformers', alone and in a batch`, async (t) => {
    const golden = await onHost(join(place, "golden.safetensors"));
    for (const [name, files] of Object.entries(cases)) {
      const model = await load(folderOf(files), device);
      const { data, shape } = golden[name] as { data: Float32Array; shape: number[] };
      const size = shape[1] as number;
      const together = await model.embed(texts);
      for (const [i, text] of texts.entries()) {
        const expected = data.subarray(i * size, (i + 1) * size);
        const [alone] = await model.embed([text]);
        t.is(alone?.length, size, name);
        // Two layers in another order of summation.
        t.true(error(alone as Float32Array, expected) < 1e-5, `${name}: "${text}"`);
        t.true(error(together[i] as Float32Array, expected) < 1e-5, `${name}: "${text}" with others`);
      }
      model.dispose();
    }
  });
}

const mean = cases["mean, normalised"] as Files;

test("options override the folder's modules", async (t) => {
  const model = await load(folderOf(mean));
  const first = await load(folderOf(cases["first token"] as Files));
  const text = ["Marta keeps the lighthouse 2 miles out"];
  const options = { pooling: "cls", normalize: false } as const;
  t.deepEqual(await model.embed(text, options), await first.embed(text));
  t.notDeepEqual(await model.embed(text, { maxLength: 5 }), await model.embed(text));
  const both = await model.embed(text, { pooling: ["cls", "max"], normalize: false });
  const apart = [
    await model.embed(text, options),
    await model.embed(text, { pooling: "max", normalize: false }),
  ];
  t.deepEqual(
    [...(both[0] as Float32Array)],
    apart.flatMap(([one]) => [...(one as Float32Array)]),
  );
  model.dispose();
  first.dispose();
});

test("modules and poolings that are not supported are refused by name, unless options replace them", async (t) => {
  const dense = { idx: 2, name: "2", path: "2_Dense", type: "sentence_transformers.models.Dense" };
  const modules = [...(mean["modules.json"] as object[]).slice(0, 2), dense];
  const refused: [Files, RegExp][] = [
    [{ ...mean, "modules.json": modules }, /modules\.json.*the module Dense/],
    [{ ...mean, "1_Pooling/config.json": { pooling_mode: "median" } }, /1_Pooling.*pooling_mode "median"/],
    [{ ...mean, "modules.json": modules.slice(0, 1) }, /no module Pooling/],
  ];
  for (const [files, message] of refused) {
    const model = await load(folderOf(files));
    await t.throwsAsync(model.embed(["a"]), { code: "ERR_UNSUPPORTED_MODEL", message });
    t.is((await model.embed(["a"], { pooling: "mean", normalize: true })).length, 1);
    model.dispose();
  }
  const wrong: [Files, RegExp][] = [
    [{ ...mean, "modules.json": { idx: 0 } }, /must be a list of modules/],
    [{ ...mean, "modules.json": [{ type: "a.Transformer" }] }, /module 0 must have a type and a path/],
    [
      { ...mean, "modules.json": [{ type: "a.Transformer", path: "../x" }] },
      /leads out of the model's folder/,
    ],
    [{ ...mean, "sentence_bert_config.json": { max_seq_length: 0 } }, /max_seq_length must be/],
    [
      { ...mean, "config_sentence_transformers.json": { prompts: {}, default_prompt_name: "q" } },
      /default_prompt_name must be a name in prompts, got "q"/,
    ],
  ];
  for (const [files, message] of wrong) {
    const model = await load(folderOf(files));
    await t.throwsAsync(model.embed(["a"]), { code: "ERR_FILE_FORMAT", message });
    model.dispose();
  }
});

const KEPT = [
  "modules.json",
  "1_Pooling/config.json",
  "sentence_bert_config.json",
  "config_sentence_transformers.json",
];

test.serial("saveModel and merge keep the modules, so that vectors do not change", async (t) => {
  const files = cases["a prompt that is not pooled"] as Files;
  const normalised = { ...files, "modules.json": mean["modules.json"] as object };
  const folder = folderOf(normalised);
  const model = await load(folder);
  const vectors = await model.embed(texts);
  const saved = join(temporary(), "saved");
  await saveModel(model, saved);
  await lora.inject(model, { r: 2, targetModules: ["query", "value"] });
  const adapter = temporary();
  await lora.saveAdapter(model, adapter);
  model.dispose();
  const merged = join(temporary(), "merged");
  const { status, stderr } = await runHere("merge", "--adapter", adapter, "--output", merged);
  t.is(status, 0, stderr);
  for (const to of [saved, merged]) {
    for (const name of KEPT)
      t.is(readFileSync(join(to, name), "utf8"), readFileSync(join(folder, name), "utf8"), name);
    t.true(existsSync(join(to, "2_Normalize")));
    const again = await load(to);
    t.deepEqual(await again.embed(texts), vectors);
    again.dispose();
  }
  // Also when saved over its own folder.
  const own = await load(saved);
  await saveModel(own, saved, { overwrite: true });
  own.dispose();
  for (const name of KEPT) t.true(existsSync(join(saved, name)), name);
});

test("a classifier made from such a folder drops the modules", async (t) => {
  const folder = folderOf(mean);
  const model = await loadModel(folder, {
    device: "cpu",
    task: "sequence-classification",
    numLabels: 2,
    onNotice: () => {},
  });
  const saved = join(temporary(), "saved");
  await saveModel(model, saved);
  model.dispose();
  t.false(existsSync(join(saved, "modules.json")));
});
