/** The content of a path, from headers alone; and whether an adapter fits, which must agree with loading it. */
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import {
  finetune,
  inspect,
  type Inspected,
  type InspectedAdapter,
  type InspectedModel,
  type InspectOptions,
  LlamaForCausalLM,
  loadModel,
  lora,
  memory,
  safetensors,
} from "../../src/index.js";
import { runHere } from "../cli/lowrank.js";
import { goldenModel, temporary, tinyData, tinyModel } from "../hashed.js";
import { goldens } from "../parity/goldens.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { quick } from "../train/quick.js";

const model = goldenModel(join(goldens, "llama-tied"));
const other = goldenModel(join(goldens, "llama-untied-llama3"));

async function modelAt(path: string): Promise<InspectedModel> {
  return (await inspect(path)) as InspectedModel;
}

async function adapterAt(path: string, given: InspectOptions = {}): Promise<InspectedAdapter> {
  return (await inspect(path, given)) as InspectedAdapter;
}

type Injected = Parameters<typeof lora.inject>[1];

/** Saves an adapter of the model. */
async function adapter(options: Injected, base = model): Promise<string> {
  const folder = join(temporary(), "adapter");
  const one = await loadModel(base);
  await lora.inject(one, { r: 4, targetModules: ["q_proj", "v_proj"], ...options });
  await lora.saveAdapter(one, folder);
  one.dispose();
  return folder;
}

/** Whether an adapter can be loaded. */
async function loads(path: string, base: string): Promise<boolean> {
  const one = await loadModel(base);
  try {
    await lora.loadAdapter(one, path);
    return true;
  } catch {
    return false;
  } finally {
    one.dispose();
  }
}

/** Checks that the reported fit agrees with loading. */
async function agrees(t: ExecutionContext, path: string, base: string): Promise<InspectedAdapter> {
  const found = await adapterAt(path, { model: base });
  t.is(found.fit?.fits, await loads(path, base), JSON.stringify(found.fit));
  return found;
}

test("a model: its sizes, weights, tokenizer and targets", async (t) => {
  const found = await modelAt(other);
  t.like(found, {
    kind: "model",
    path: other,
    source: other,
    family: "llama",
    architecture: "LlamaForCausalLM",
    loadedAs: "LlamaForCausalLM",
    layers: 2,
    hiddenSize: 48,
    heads: 6,
    keyValueHeads: 2,
    headDim: 16,
    context: 128,
    vocabulary: 97,
    tied: false,
    tokenizer: undefined,
    fits: true,
    problems: [],
  });
  const one = await loadModel(other);
  const values = [...one.parameters()].reduce((sum, { size }) => sum + size, 0);
  t.is(found.parameters, values);
  t.is(found.bytes, 4 * values);
  t.deepEqual(found.dtypes, { f32: values });
  const target = (name: string) => found.targets.find((each) => each.name === name);
  t.deepEqual(target("q_proj"), { name: "q_proj", layers: 2, features: [48, 96], allLinear: true });
  t.deepEqual(target("lm_head"), { name: "lm_head", layers: 1, features: [48, 97], allLinear: false });
  const { adapted } = await lora.inject(one, { targetModules: "all-linear" });
  t.is(
    found.targets.filter(({ allLinear }) => allLinear).reduce((sum, { layers }) => sum + layers, 0),
    adapted.length,
  );
  one.dispose();
  t.like(await modelAt(join(other, "model.safetensors")), { kind: "model", layers: 2, fits: true });
  const letters = await modelAt(tinyModel());
  t.like(letters, { tokenizer: { chatTemplate: false }, tied: false });
});

test("other families: classifiers and encoders", async (t) => {
  t.like(await modelAt(goldenModel(join(goldens, "families/vit"))), {
    family: "vit",
    loadedAs: "ViTForImageClassification",
    fits: true,
  });
  t.like(await modelAt(goldenModel(join(goldens, "families/gpt2"))), { heads: 4, headDim: 8, context: 24 });
  t.like(await modelAt(await tinyEncoder()), { family: "bert", loadedAs: "BertModel", vocabulary: 99 });
});

test("rows with labels are counted for a classifier, and refused for a language model", async (t) => {
  const file = rowsFile(seaAndLand(20));
  t.like(await inspect(file, { model: await tinyEncoder() }), { kind: "data", rows: 20, kept: 20 });
  await t.throwsAsync(inspect(file, { model: tinyModel() }), { code: "ERR_UNSUPPORTED_MODEL" });
});

test("a model that cannot be loaded: the reason, and the information that is still available", async (t) => {
  const lacking = temporary();
  cpSync(model, lacking, { recursive: true });
  const tensors = await safetensors.load(join(lacking, "model.safetensors"));
  const { "model.norm.weight": _, ...rest } = tensors;
  await safetensors.save(join(lacking, "model.safetensors"), rest);
  const found = await modelAt(lacking);
  t.like(found, { fits: false, family: "llama", targets: [] });
  t.regex(found.problems.join(), /missing: model\.norm\.weight/);
  t.true(found.parameters > 1000);

  const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8")) as object;
  writeFileSync(join(lacking, "config.json"), JSON.stringify({ ...config, model_type: "mamba" }));
  const unknown = await modelAt(lacking);
  t.like(unknown, { fits: false, family: "mamba", parameters: found.parameters });
  t.regex(unknown.problems.join(), /model_type "mamba" is not supported/);

  rmSync(join(lacking, "model.safetensors"));
  t.regex((await modelAt(lacking)).problems.join(), /model\.safetensors/);
});

test("a PEFT adapter: its configuration, and whether it fits", async (t) => {
  const path = await adapter({
    r: 4,
    loraAlpha: 6,
    rankPattern: { "layers.1.self_attn.q_proj": 2 },
    useRslora: true,
  });
  const found = await agrees(t, path, model);
  t.like(found, {
    kind: "adapter",
    path,
    format: "peft",
    baseModel: model,
    layers: 4,
    targets: ["q_proj", "v_proj"],
    problems: [],
    fit: { model, fits: true, matched: 8, unexpected: [], missing: [], misshapen: [] },
  });
  t.deepEqual(found.ranks, [
    { rank: 4, alpha: 6, layers: 3 },
    { rank: 2, alpha: 6, layers: 1 },
  ]);
  t.like(found.options, { r: 4, loraAlpha: 6, useRslora: true });
  t.is((await adapterAt(path)).fit, undefined);
  t.is(found.bytes, 4 * found.parameters);

  const misfit = (await agrees(t, path, other)).fit;
  t.is(misfit?.fits, false);
  t.true((misfit?.misshapen.length ?? 0) > 0);
  const first = misfit?.misshapen.find(({ key }) => key.endsWith("layers.0.self_attn.q_proj.lora_B.weight"));
  t.deepEqual(
    [first?.shape, first?.expected].map((one) => [...(one ?? [])]),
    [
      [48, 4],
      [96, 4],
    ],
  );
});

test("for any adapter the reported fit agrees with loading", async (t) => {
  const kinds: Injected[] = [
    { useDora: true },
    { loraBias: true },
    { modulesToSave: ["lm_head"] },
    { targetModules: ["embed_tokens", "q_proj"] },
    { initLoraWeights: "olora" },
    { trainableTokenIndices: [1, 5] },
    { targetModules: "all-linear", bias: "all" },
  ];
  for (const options of kinds) {
    const path = await adapter(options, other);
    t.true((await agrees(t, path, other)).fit?.fits, JSON.stringify(options));
    await agrees(t, path, model);
  }
  const olora = await adapterAt(await adapter({ initLoraWeights: "olora" }));
  t.like(olora, { start: "olora", ranks: [{ rank: 8, layers: 4 }] });
});

test("missing and additional keys are all named", async (t) => {
  const path = await adapter({});
  const file = join(path, "adapter_model.safetensors");
  const tensors = await safetensors.load(file);
  const gone = Object.keys(tensors).filter((key) =>
    /layers\.1|layers\.0\.self_attn\.q_proj\.lora_A/.test(key),
  );
  for (const key of gone) delete tensors[key];
  const extra = Array.from({ length: 9 }, (_, i) => `base_model.model.model.more.${i}`);
  for (const key of extra) tensors[key] = tensors[Object.keys(tensors)[0] as string]!;
  await safetensors.save(file, tensors);
  const { fit } = await agrees(t, path, model);
  t.deepEqual(fit?.missing.toSorted(), gone.toSorted());
  t.deepEqual(fit?.unexpected.toSorted(), extra.toSorted());
});

test("files of kohya's and loralib's", async (t) => {
  const path = await adapter({ loraAlpha: 6 });
  const [kohya, loralib] = ["kohya", "loralib"].map((name) => join(temporary(), `${name}.safetensors`)) as [
    string,
    string,
  ];
  await lora.convertAdapter(path, kohya, { format: "kohya" });
  await lora.convertAdapter(path, loralib, { format: "loralib" });
  const ranks = [{ rank: 4, alpha: 6, layers: 4 }];
  t.like(await agrees(t, kohya, model), { format: "kohya", ranks, networks: ["lora_te"], layers: 4 });
  t.like(await agrees(t, loralib, model), { format: "loralib", ranks, targets: ["q_proj", "v_proj"] });
  for (const file of [kohya, loralib]) {
    t.is((await adapterAt(file)).fit, undefined);
    t.is((await agrees(t, file, other)).fit?.fits, false);
  }
});

test("a classifier's adapter contains its head", async (t) => {
  const encoder = await tinyEncoder();
  const data = join(temporary(), "rows.jsonl");
  const rows = ["a", "b", "c"].map((text) => JSON.stringify({ text, label: text }));
  writeFileSync(data, rows.join("\n"));
  const run = finetune(quick({ model: encoder, data }, "cpu", { steps: 1 }));
  const { adapter: path } = await run.result;
  t.like((await adapterAt(path, { model: encoder })).fit, { fits: true });
});

test("an adapter that cannot be loaded: the reason", async (t) => {
  const path = await adapter({});
  const config = join(path, "adapter_config.json");
  const own = JSON.parse(readFileSync(config, "utf8")) as object;
  writeFileSync(config, JSON.stringify({ ...own, peft_type: "LOHA" }));
  const found = await agrees(t, path, model);
  t.regex(found.problems.join(), /peft_type is "LOHA"/);
  t.true(found.parameters > 0);
  writeFileSync(config, "{");
  await t.throwsAsync(inspect(path), { code: "ERR_FILE_FORMAT" });
  writeFileSync(config, JSON.stringify({ ...own, r: 5 }));
  t.regex((await adapterAt(path)).problems.join(), /has rank 4, its configuration says 5/);
});

test.serial("no weight is read: nothing is allocated or mapped", async (t) => {
  const path = await adapter({});
  const figures = () => ({ ...memory("cpu") });
  const before = figures();
  await inspect(model);
  await inspect(path, { model });
  await inspect(tinyData(), { model: tinyModel() });
  t.deepEqual(figures(), before);
});

test("other paths, and wrong options", async (t) => {
  const folder = temporary();
  await t.throwsAsync(inspect(folder), { code: "ERR_FILE_NOT_FOUND", message: /neither a config\.json/ });
  await t.throwsAsync(inspect(join(folder, "gone")), { code: "ERR_FILE_NOT_FOUND", message: /no such file/ });
  writeFileSync(join(folder, "a.bin"), "x");
  await t.throwsAsync(inspect(join(folder, "a.bin")), { code: "ERR_FILE_FORMAT" });
  writeFileSync(join(folder, "b.safetensors"), "x");
  await t.throwsAsync(inspect(join(folder, "b.safetensors")), { code: "ERR_FILE_FORMAT" });
  await t.throwsAsync(inspect(model, { rank: 1 } as InspectOptions), { code: "ERR_OPTION" });
  await t.throwsAsync(inspect("", {}), { code: "ERR_OPTION" });
  await t.throwsAsync(inspect(model, { model: 3 as unknown as string }), { code: "ERR_OPTION" });
  const sizes = { hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
  const fresh = LlamaForCausalLM.fromConfig({ ...sizes, vocab_size: 20 });
  await t.throwsAsync(
    adapter({}).then((path) => inspect(path, { model: fresh })),
    {
      code: "ERR_OPTION",
      message: /was not loaded from a folder/,
    },
  );
  fresh.dispose();
  const loaded = await loadModel(model);
  t.is((await adapterAt(await adapter({}), { model: loaded })).fit?.fits, true);
  t.deepEqual(lora.adapters(loaded), []);
  loaded.dispose();
});

test.serial("the command prints the same object, and lines", async (t) => {
  const path = await adapter({ useDora: true });
  const run = async (expected: number, ...argv: string[]): Promise<Inspected> => {
    const { status, stdout, stderr } = await runHere("inspect", ...argv, "--json");
    t.is(status, expected, stderr);
    t.is(stderr, "");
    return JSON.parse(stdout) as Inspected;
  };
  const same = (a: unknown, b: unknown) => t.deepEqual(a, JSON.parse(JSON.stringify(b)));
  same(await run(0, model), await inspect(model));
  same(await run(1, path, "--model", other), await inspect(path, { model: other }));
  const lines = (await runHere("inspect", path, "--model", model)).stdout;
  t.regex(lines, /an adapter, a folder of PEFT's/);
  t.regex(lines, /rank +4 \(alpha 8\) × 4 layers/);
  t.regex(lines, /besides +DoRA/);
  t.regex(lines, /It fits .*: 12 tensors\./);
  const { status: no, stdout: wrong, stderr: silent } = await runHere("inspect", path, "--model", other);
  t.is(no, 1, "the answer is no");
  t.is(silent, "");
  t.regex(wrong, /It does not fit/);
  t.regex(wrong, /q_proj\.lora_B\.weight is \[48, 4\], this model takes \[96, 4\]/);
  const told = (await runHere("inspect", model)).stdout;
  t.regex(told, /heads +6 of 8, 2 of keys and values/);
  t.regex(told, /q_proj × 2 \[48 → 48\]/);
  t.regex(told, /It can be loaded\./);
});
