/** Loading a folder: the class, tensor names of old and new files, heads and labels; and saving it. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import test, { type ExecutionContext } from "ava";
import {
  loadModel,
  lora,
  LowrankError,
  manualSeed,
  safetensors,
  saveModel,
  scope,
  SequenceClassifier,
  tensor,
  TextEncoder,
  zeros,
  type ErrorCode,
  type LoadOptions,
  type PretrainedModel,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { readBertConfig, writeBertConfig as bertHub } from "../../src/models/bert/config.js";
import {
  readDistilBertConfig,
  writeDistilBertConfig as distilBertHub,
} from "../../src/models/distilbert/config.js";
import { readGpt2Config, writeGpt2Config as gpt2Hub } from "../../src/models/gpt2/config.js";
import { readViTConfig, writeViTConfig as vitHub } from "../../src/models/vit/config.js";
import { goldenModel, hashed, temporary } from "../hashed.js";
import { error, goldens, onHost } from "../parity/goldens.js";

type Given = Parameters<typeof goldenModel>;

const golden = (variant: string): string => join(goldens, "families", variant);
const folderOf = (variant: string, overrides?: Given[1], spelled?: Given[2]): string =>
  goldenModel(golden(variant), overrides, spelled);

async function refused(t: ExecutionContext, run: () => unknown, code: ErrorCode, message: RegExp) {
  // eslint-disable-next-line @typescript-eslint/require-await
  const error = await t.throwsAsync(async () => run(), { instanceOf: LowrankError, message });
  t.is(error?.code, code);
}

/** Loads on the cpu; returns the model and its notices. */
async function load(folder: string, options: LoadOptions = {}) {
  const notices: string[] = [];
  const onNotice = (text: string): void => void notices.push(text);
  const model: PretrainedModel = await loadModel(folder, { device: "cpu", onNotice, ...options });
  return { model, notices };
}

/** Returns logits, or hidden states for a model without a head, of the golden's batch. */
async function outputs(model: PretrainedModel, variant: string) {
  const host = await onHost(join(golden(variant), "golden.safetensors"));
  const given = (name: string) => {
    const one = host[name];
    return one && tensor(one.data, { shape: one.shape, device: "cpu" });
  };
  const out = scope(() =>
    model.forward((given("input_ids") ?? given("pixel_values"))!, {
      attentionMask: given("attention_mask"),
      tokenTypeIds: given("token_type_ids"),
      positionIds: given("position_ids"),
    }),
  );
  return {
    ours: await (out.logits ?? out.hidden).data(),
    theirs: host[out.logits === undefined ? "hidden" : "logits"]?.data ?? [],
  };
}

async function equals(t: ExecutionContext, model: PretrainedModel, variant: string) {
  const { ours, theirs } = await outputs(model, variant);
  t.true(error(ours, theirs) < 1e-5, `${variant} is off by ${error(ours, theirs)}`);
}

const OLD: Record<string, (name: string) => string> = {
  gpt2: (name) => name.replace("transformer.", ""),
  distilbert: (name) => name.replace("distilbert.", ""),
  bert: (name) =>
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
  vit: (name) =>
    name
      .replace("encoder.layer.", "layers.")
      .replace(/attention\.attention\.(q|k|v)\w+/, "attention.$1_proj")
      .replace("attention.output.dense", "attention.o_proj")
      .replace("intermediate.dense", "mlp.fc1")
      .replace("output.dense", "mlp.fc2"),
};
for (const [variant, spelled] of Object.entries(OLD)) {
  test(`${variant}: other forms of the tensor names`, async (t) => {
    const folder = folderOf(variant, {}, spelled);
    const names = safetensors.openWeights(folder).names();
    t.true(names.some((name) => !(name in weightsOf(variant))));
    const { model, notices } = await load(folder);
    t.deepEqual(notices, []);
    await equals(t, model, variant);
    model.dispose();
  });
}

function weightsOf(variant: string): Record<string, number[]> {
  const text = readFileSync(join(golden(variant), "golden.json"), "utf8");
  return (JSON.parse(text) as { weights: Record<string, number[]> }).weights;
}

test("buffers of older files and heads of other tasks are ignored with one notice", async (t) => {
  const folder = folderOf("bert", { architectures: ["BertForMaskedLM"] });
  const file = join(folder, "model.safetensors");
  const tensors = await safetensors.load(file, { device: "cpu" });
  tensors["bert.embeddings.position_ids"] = zeros([1, 24], { dtype: "i32", device: "cpu" });
  tensors["cls.predictions.bias"] = zeros([97], { device: "cpu" });
  await safetensors.save(file, tensors);
  const { model, notices } = await load(folder);
  t.true(model instanceof TextEncoder);
  t.is(notices.length, 1);
  t.regex(notices[0] ?? "", /ignored 4 unused tensors.*classifier/);
  await equals(t, model, "bert");
  model.dispose();

  tensors["bert.stranger"] = zeros([1], { device: "cpu" });
  await safetensors.save(file, tensors);
  await refused(t, () => load(folder), "ERR_UNMATCHED_KEY", /not of this model: bert\.stranger/);
});

test("GPT-2's masks are ignored, and a file may contain its tied head as well", async (t) => {
  const folder = folderOf("gpt2", {}, OLD["gpt2"]);
  const file = join(folder, "model.safetensors");
  const tensors = await safetensors.load(file, { device: "cpu" });
  tensors["h.0.attn.bias"] = zeros([1, 1, 24, 24], { device: "cpu" });
  tensors["h.1.attn.masked_bias"] = zeros([1], { device: "cpu" });
  tensors["lm_head.weight"] = tensors["wte.weight"]!;
  await safetensors.save(file, tensors);
  const { model, notices } = await load(folder);
  t.regex(notices.join(), /^[^,]*ignored 2 unused tensors.*h\.0\.attn\.bias, h\.1\.attn\.masked_bias$/);
  await equals(t, model, "gpt2");
  model.dispose();

  // A head that differs from the embedding causes a notice, in any storage type.
  const wte = tensors["wte.weight"]!;
  for (const [head, dtype, told] of [
    [wte.add(0.5), undefined, true],
    [wte.add(0.5).to("f16"), undefined, true],
    [wte.to("bf16"), undefined, false],
    [wte, "bf16", false],
  ] as const) {
    tensors["lm_head.weight"] = head;
    await safetensors.save(file, tensors);
    const { model: other, notices: more } = await load(folder, { dtype });
    const expected =
      /lm_head\.weight differs from the embedding .* is ignored; .* tie_word_embeddings to false/;
    t.is(more.filter((notice) => expected.test(notice)).length, told ? 1 : 0, more.join());
    if (dtype === undefined) await equals(t, other, "gpt2");
    other.dispose();
  }
});

for (const variant of ["bert", "roberta", "distilbert", "vit"]) {
  test(`${variant}: a missing head, or one with other labels, is initialised`, async (t) => {
    const headless = folderOf(variant, {}, (name) => (/^(pre_)?classifier\./.test(name) ? "" : name));
    const task = variant === "vit" ? "image-classification" : "sequence-classification";
    const { model, notices } = await load(headless, { task, numLabels: 5 });
    t.is(notices.length, 1);
    t.regex(notices[0] ?? "", /has no weights for (pre_)?classifier\..*initialised randomly/);
    t.is((await outputs(model, variant)).ours.length, 15);
    model.dispose();

    const other = await load(folderOf(variant), { task, numLabels: 5 });
    t.regex(other.notices.join(), /classifier\./);
    t.is((await outputs(other.model, variant)).ours.length, 15);
    other.model.dispose();
    await refused(t, () => load(headless, { numLabels: 0 }), "ERR_OPTION", /numLabels/);
    const whole = { dtype: "i32" } as unknown as LoadOptions;
    await refused(
      t,
      () => load(headless, whole),
      "ERR_OPTION",
      /dtype must be one of f32, f16, bf16, got "i32"/,
    );
  });
}

test("an unsupported family or task is an error that lists the supported ones", async (t) => {
  const other = folderOf("bert", { model_type: "deberta" });
  await refused(
    t,
    () => load(other),
    "ERR_UNSUPPORTED_MODEL",
    /"deberta".*llama, mistral, qwen2, qwen3, gemma3_text, phi3, gpt2, bert, roberta, distilbert, vit/,
  );
  const answers = folderOf("bert", { architectures: ["BertForQuestionAnswering"] });
  await refused(
    t,
    () => load(answers),
    "ERR_UNSUPPORTED_MODEL",
    /BertForQuestionAnswering is not supported for bert.*feature-extraction, sequence-classification/,
  );
  await refused(
    t,
    () => load(folderOf("gpt2"), { task: "image-classification" }),
    "ERR_UNSUPPORTED_MODEL",
    /"image-classification" is not supported for gpt2; supported are causal-lm/,
  );
  await refused(
    t,
    () => load(folderOf("bert", { position_embedding_type: "relative_key" })),
    "ERR_UNSUPPORTED_MODEL",
    /relative_key/,
  );
  await refused(
    t,
    () => load(folderOf("gpt2", { add_cross_attention: true })),
    "ERR_UNSUPPORTED_MODEL",
    /add_cross_attention/,
  );
  await refused(t, () => load(folderOf("gpt2", { n_head: 5 })), "ERR_FILE_FORMAT", /5 heads/);
  await refused(t, () => load(folderOf("distilbert", { n_heads: 5 })), "ERR_FILE_FORMAT", /5 heads/);
});

test("BERT's loss by the kind of labels: values, and multi-label", async (t) => {
  const { losses } = JSON.parse(readFileSync(join(golden("bert"), "golden.json"), "utf8")) as {
    losses: Record<"regression" | "multi", { labels: number[][]; loss: number }>;
  };
  const host = await onHost(join(golden("bert"), "golden.safetensors"));
  const given = (name: string) => tensor(host[name]!.data, { shape: host[name]!.shape, device: "cpu" });
  const lossOf = async (model: PretrainedModel, labels: number[][]): Promise<number> => {
    const out = scope(() =>
      model.forward(given("input_ids"), {
        attentionMask: given("attention_mask"),
        tokenTypeIds: given("token_type_ids"),
        labels: tensor(labels, { device: "cpu" }),
      }),
    );
    return out.loss!.item();
  };
  const several = await load(folderOf("bert"));
  const multi = await lossOf(several.model, losses.multi.labels);
  t.true(Math.abs(multi / losses.multi.loss - 1) < 1e-5, `${multi}, not ${losses.multi.loss}`);
  several.model.dispose();
  // The golden's one-label head has another shape and is filled by its name.
  const one = goldenModel(golden("bert"), { id2label: { 0: "value" }, label2id: { value: 0 } }, undefined, {
    "classifier.weight": [1, 32],
    "classifier.bias": [1],
  });
  const values = await load(one);
  const regression = await lossOf(values.model, losses.regression.labels);
  t.true(
    Math.abs(regression / losses.regression.loss - 1) < 1e-5,
    `${regression}, not ${losses.regression.loss}`,
  );
  values.model.dispose();
});

test("labels and images of the wrong shape or values are refused", async (t) => {
  const { model } = await load(folderOf("bert"));
  const ids = tensor(Int32Array.of(5, 6, 7, 8), { shape: [2, 2], device: "cpu" });
  const labels = (values: number[]) => tensor(Int32Array.from(values), { device: "cpu" });
  await refused(t, () => model.forward(ids, { labels: labels([0, 3]) }).loss!.item(), "ERR_INDEX", /3/);
  await refused(t, () => model.forward(ids, { labels: labels([0]) }), "ERR_SHAPE_MISMATCH", /takes \[2\]/);
  const long = zeros([1, 25], { dtype: "i32", device: "cpu" });
  await refused(t, () => model.forward(long), "ERR_INDEX", /25 tokens.*24/);
  model.dispose();
  const roberta = await load(folderOf("roberta"));
  await refused(t, () => roberta.model.forward(long), "ERR_INDEX", /25 tokens.*24/);
  roberta.model.dispose();
  const distilbert = await load(folderOf("distilbert"));
  await refused(t, () => distilbert.model.forward(long), "ERR_INDEX", /25 tokens.*24/);
  const kinds = { tokenTypeIds: zeros([2, 2], { dtype: "i32", device: "cpu" }) };
  await refused(t, () => distilbert.model.forward(ids, kinds), "ERR_OPTION", /no embedding of which text/);
  distilbert.model.dispose();
  const vit = await load(folderOf("vit"));
  const pixels = zeros([1, 3, 12, 16], { device: "cpu" });
  await refused(t, () => vit.model.forward(pixels), "ERR_SHAPE_MISMATCH", /12, 16\]; .* \[B, 3, 12, 12\]/);
  vit.model.dispose();
});

for (const variant of ["gpt2", "gpt2-scaled", "bert", "roberta", "distilbert", "vit"]) {
  test(`${variant}: a saved model has transformers' tensor names, and loads unchanged`, async (t) => {
    const { model } = await load(folderOf(variant));
    const saved = join(temporary(), "saved");
    await saveModel(model, saved);
    model.dispose();
    const names = safetensors.openWeights(saved).names().sort();
    t.deepEqual(names, Object.keys(weightsOf(variant)).sort());
    const again = await load(saved);
    t.deepEqual(again.notices, []);
    await equals(t, again.model, variant);
    again.model.dispose();
  });
}

test("a configuration is written with floats for the numbers that transformers reads as floats", async (t) => {
  const folder = join(temporary(), "whole");
  cpSync(folderOf("gpt2"), folder, { recursive: true });
  const file = join(folder, "config.json");
  const read = readFileSync(file, "utf8").replace(/"initializer_range"\s*:\s*[\d.]+,/, "");
  writeFileSync(file, read.replace("{", '{"of_another": 2.0, "initializer_range": 1, "count": 3,'));
  const { model } = await load(folder);
  const saved = join(temporary(), "saved");
  await saveModel(model, saved);
  model.dispose();
  const written = readFileSync(join(saved, "config.json"), "utf8");
  for (const line of ['"of_another": 2.0,', '"initializer_range": 1.0,', '"count": 3,', '"n_layer": '])
    t.true(written.includes(line), `${line} in ${written}`);
  t.false(/"n_layer": \d+\.0/.test(written));
  JSON.parse(written);
});

test("a model saved over its own folder stays unchanged, in memory and on disk", async (t) => {
  const { model } = await load(folderOf("gpt2"));
  const saved = join(temporary(), "saved");
  await saveModel(model, saved);
  model.dispose();
  const { model: own } = await load(saved);
  await saveModel(own, saved, { overwrite: true });
  await equals(t, own, "gpt2");
  own.dispose();
  t.deepEqual(readdirSync(dirname(saved)), ["saved"]);
  const again = await load(saved);
  await equals(t, again.model, "gpt2");
  again.model.dispose();
});

test("a classifier with new labels writes them to its configuration", async (t) => {
  const { model } = await load(folderOf("bert", { num_labels: 3 }), {
    task: "sequence-classification",
    numLabels: 2,
  });
  t.true(model instanceof SequenceClassifier);
  const saved = join(temporary(), "saved");
  await saveModel(model, saved);
  model.dispose();
  const config = JSON.parse(readFileSync(join(saved, "config.json"), "utf8")) as Record<string, unknown>;
  t.deepEqual(config["id2label"], { 0: "LABEL_0", 1: "LABEL_1" });
  t.false("num_labels" in config);
});

test("a configuration that is written reads back unchanged", (t) => {
  const of = (variant: string) =>
    JSON.parse(readFileSync(join(golden(variant), "config.json"), "utf8")) as Record<string, unknown>;
  for (const variant of ["gpt2", "gpt2-scaled"]) {
    const config = readGpt2Config(of(variant));
    t.deepEqual(readGpt2Config(gpt2Hub(config)), config);
  }
  for (const variant of ["bert", "roberta"]) {
    const config = readBertConfig(of(variant));
    t.deepEqual(readBertConfig(bertHub(config)), config);
  }
  const distilbert = readDistilBertConfig({ ...of("distilbert"), sinusoidal_pos_embds: true });
  t.deepEqual(readDistilBertConfig(distilBertHub(distilbert)), distilbert);
  const config = readViTConfig({ ...of("vit"), image_size: [12, 16] });
  t.deepEqual(readViTConfig(vitHub(config)), config);
});

test("padding does not change unpadded rows", async (t) => {
  const { model } = await load(folderOf("roberta"));
  const row = Int32Array.of(0, 9, 30, 41, 2);
  const logits = async (ids: Int32Array, mask?: Int32Array) => {
    const shape = [1, ids.length];
    const attentionMask = mask && tensor(mask, { shape, device: "cpu" });
    const out = scope(() => model.forward(tensor(ids, { shape, device: "cpu" }), { attentionMask }));
    return out.logits!.data();
  };
  const padded = await logits(Int32Array.of(...row, 1, 1, 1), Int32Array.of(1, 1, 1, 1, 1, 0, 0, 0));
  t.true(error(padded, await logits(row)) < 1e-6);
  model.dispose();
});

for (const variant of ["gpt2", "bert", "roberta", "distilbert", "vit"]) {
  // Serial: it seeds the environment's random generator.
  test.serial(`${variant}: checkpointing changes no bit of a gradient`, async (t) => {
    const host = await onHost(join(golden(variant), "golden.safetensors"));
    const gradients = async (checkpointing: boolean) => {
      manualSeed(5);
      // With dropout, so that recomputation must drop the same values.
      const some = { resid_pdrop: 0.2, embd_pdrop: 0.2, hidden_dropout_prob: 0.2 };
      const { model } = await load(folderOf(variant, some));
      await lora.inject(model, { r: 2, targetModules: "all-linear", bias: "all" });
      model.train().gradientCheckpointing = checkpointing;
      const given = (name: string) =>
        host[name] && tensor(host[name].data, { shape: host[name].shape, device: "cpu" });
      const loss = scope(() => {
        const input = given("input_ids") ?? given("pixel_values");
        const out = model.forward(input!, {
          labels: given("labels"),
          attentionMask: given("attention_mask"),
        });
        const loss = out.loss!;
        loss.backward();
        return loss.detach();
      });
      const grads = [...model.parameters()].filter((one) => one.requiresGrad).map((one) => one.grad!);
      const values = await Promise.all([loss, ...grads].map((one) => one.data()));
      model.dispose();
      return values.map((one) => [...one]);
    };
    t.deepEqual(await gradients(true), await gradients(false));
  });
}

for (const dtype of ["f16", "bf16"] as const) {
  test(`every family computes with weights stored as ${dtype}`, async (t) => {
    for (const variant of ["gpt2", "bert", "roberta", "distilbert", "vit"]) {
      const { model } = await load(folderOf(variant), { dtype });
      const { ours, theirs } = await outputs(model, variant);
      const off = error(ours, theirs);
      // A weight is off by a relative 2^-11 or 2^-8, and a logit by a few times that.
      t.true(off > 0 && off < (dtype === "f16" ? 0.01 : 0.06), `${variant} is off by ${off}`);
      const saved = join(temporary(), "saved");
      await saveModel(model, saved);
      model.dispose();
      const again = await load(saved);
      t.deepEqual([...(await outputs(again.model, variant)).ours], [...ours]);
      again.model.dispose();
    }
  });
}

for (const variant of ["bert", "roberta", "distilbert", "vit"]) {
  test(`${variant}: an adapter per row gives the logits of each adapter alone, and the sum of their losses`, async (t) => {
    const { model } = await load(folderOf(variant));
    const names = ["one", null, "two"];
    for (const name of ["one", "two"]) {
      await lora.inject(model, { r: 2, targetModules: "all-linear", name, taskType: "FEATURE_EXTRACTION" });
      for (const [key, one] of collectAdapterState(model, name))
        one.copy(tensor(hashed(`${name}.${key}`, one.shape), { shape: one.shape, device: "cpu" }));
    }
    const host = await onHost(join(golden(variant), "golden.safetensors"));
    const given = (name: string) =>
      host[name] && tensor(host[name].data, { shape: host[name].shape, device: "cpu" });
    const run = (adapterPerRow?: (string | null)[]) =>
      scope(() =>
        model.forward((given("input_ids") ?? given("pixel_values"))!, {
          attentionMask: given("attention_mask"),
          tokenTypeIds: given("token_type_ids"),
          labels: given("labels"),
          adapterPerRow,
        }),
      );
    const mixed = run(names);
    const logits = (await mixed.logits!.data()) as Float32Array;
    let sum = 0;
    for (const [row, name] of names.entries()) {
      if (name !== null) lora.setAdapter(model, name);
      const alone = name === null ? lora.withoutAdapters(model, () => run()) : run();
      const own = (await alone.logits!.data()).subarray(row * 3, row * 3 + 3);
      t.true(error(logits.subarray(row * 3, row * 3 + 3), own) < 1e-5, `row ${row}`);
      const target = host["labels"]!.data[row] as number;
      const largest = Math.max(...own);
      sum +=
        Math.log([...own].reduce((n, v) => n + Math.exp(v - largest), 0)) + largest - (own[target] as number);
    }
    const loss = await mixed.loss!.item();
    t.true(Math.abs(loss / sum - 1) < 1e-5, `the loss is ${loss}, not ${sum}`);
    model.dispose();
  });
}
