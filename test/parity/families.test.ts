/**
 * GPT-2, BERT, RoBERTa, DistilBERT and ViT compared with transformers and PEFT in float64 (README.md): logits,
 * hidden states, losses and ten LoRA steps. The bounds are those in llama.test.ts.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import {
  BertForSequenceClassification,
  DistilBertForSequenceClassification,
  GPT2LMHeadModel,
  loadModel,
  lora,
  RobertaForSequenceClassification,
  safetensors,
  scope,
  tensor,
  ViTForImageClassification,
  type PretrainedModel,
  type Tensor,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel, hashed } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";
import { adapterEnd, tenSteps, type Training } from "./training.js";

const CLASSES = {
  GPT2LMHeadModel,
  BertForSequenceClassification,
  RobertaForSequenceClassification,
  DistilBertForSequenceClassification,
  ViTForImageClassification,
};

interface Figures {
  loss: number;
  losses?: Record<string, { labels: number[][]; loss: number }>;
  training?: Training;
  merged?: { r: number; loraAlpha: number; training: Training };
}

type Host = Record<string, Golden>;

async function read(variant: string) {
  const folder = join(goldens, "families", variant);
  const figures = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8")) as Figures;
  return { folder, figures, host: await onHost(join(folder, "golden.safetensors")) };
}

/** Returns a golden's batch on a device: the arguments of `forward`, including labels. */
function inputs(host: Host, prefix: string, device: TestDevice) {
  const given = (name: string): Tensor | undefined => {
    const one = host[`${prefix}${name}`];
    return one === undefined ? undefined : tensor(one.data, { shape: one.shape, device });
  };
  const input = given("input_ids") ?? given("pixel_values");
  if (input === undefined) throw new Error(`no batch ${prefix}`);
  const options = {
    attentionMask: given("attention_mask"),
    tokenTypeIds: given("token_type_ids"),
    positionIds: given("position_ids"),
    labels: given("labels"),
  };
  return { input, options };
}

/** Returns the outputs of `prefix`'s batch on the host. */
async function outputs(model: PretrainedModel, host: Host, device: TestDevice, prefix = "") {
  const out = scope(() => {
    const { input, options } = inputs(host, prefix, device);
    return model.forward(input, options);
  });
  const [logits, hidden] = [await out.logits?.data(), await out.hidden.data()];
  return { logits: logits ?? [], hidden, loss: (await out.loss?.item()) ?? NaN };
}

for (const device of testDevices()) {
  for (const variant of ["gpt2", "gpt2-scaled", "bert", "roberta", "distilbert", "vit"]) {
    test(`${variant} on ${device}: logits, hidden states and loss`, (t) => forward(t, variant, device));
  }
  for (const variant of ["gpt2", "gpt2-scaled", "bert", "roberta", "distilbert", "vit"]) {
    test(`${variant} on ${device}: made from its configuration, and filled`, (t) =>
      filled(t, variant, device));
  }
  for (const variant of ["gpt2", "bert", "roberta", "distilbert", "vit"]) {
    test(`${variant} on ${device}: ten steps, each gradient of the first, the adapter`, (t) =>
      trains(t, variant, device));
  }
  test(`gpt2 on ${device}: ten steps of MergedLinear on queries and values, as in the paper`, (t) =>
    trainsMerged(t, device));
}

type Assertions = ExecutionContext;

async function forward(t: Assertions, variant: string, device: TestDevice): Promise<void> {
  const { folder, figures, host } = await read(variant);
  const model: PretrainedModel = await loadModel(goldenModel(folder), { device });
  const { logits, hidden, loss } = await outputs(model, host, device);
  const off = [error(logits, host["logits"]?.data ?? []), error(hidden, host["hidden"]?.data ?? [])];
  t.log(`logits and hidden ${off.map((e) => e.toExponential(1)).join(", ")}`);
  t.true(Math.max(...off) < 1e-5, `logits and hidden states are off by ${off.join(", ")}`);
  t.true(Math.abs(loss / figures.loss - 1) < 1e-5, `the loss is ${loss}, not ${figures.loss}`);
  model.dispose();
}

/** Checks the golden's model made from its configuration alone, and filled with the golden's weights. */
async function filled(t: Assertions, variant: string, device: TestDevice): Promise<void> {
  const { folder, figures, host } = await read(variant);
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as { architectures: string[] };
  const make = CLASSES[config.architectures[0] as keyof typeof CLASSES];
  const model: PretrainedModel = make.fromConfig(config as object, { device });
  const files = await safetensors.load(join(goldenModel(folder), "model.safetensors"));
  const state = Object.keys(model.stateDict()).map((name): [string, Tensor] => {
    // The file contains a tied head once.
    const tied = name === "lm_head.weight" ? "transformer.wte.weight" : name;
    return [name, (files[model.toFileName(name)] ?? files[tied]) as Tensor];
  });
  model.loadStateDict(Object.fromEntries(state.map(([name, one]) => [name, one.to(device)])));
  const { logits, hidden, loss } = await outputs(model.eval(), host, device);
  const off = [error(logits, host["logits"]?.data ?? []), error(hidden, host["hidden"]?.data ?? [])];
  t.true(Math.max(...off) < 1e-5, `logits and hidden states are off by ${off.join(", ")}`);
  t.true(Math.abs(loss / figures.loss - 1) < 1e-5, `the loss is ${loss}, not ${figures.loss}`);
  model.dispose();
}

async function trains(t: Assertions, variant: string, device: TestDevice): Promise<void> {
  const { folder, figures, host } = await read(variant);
  const training = figures.training as Training;
  const model: PretrainedModel = await loadModel(goldenModel(folder), { device });
  await lora.loadAdapter(model, join(folder, "adapter-init"), { trainable: true });
  const before = error((await outputs(model, host, device)).logits, host["adapter_init_logits"]?.data ?? []);
  t.true(before < 1e-5, `logits with the first adapter are off by ${before}`);
  const { batches, loss } = stepsOf(host, training, device);
  const parameters = collectAdapterState(model, "default");
  await tenSteps(t, model, { training, parameters, host, end: await adapterEnd(folder), batches, loss });
  model.dispose();
}

/** Returns the batches of a golden's training, and the function of a model's loss. */
function stepsOf(host: Host, training: Training, device: TestDevice) {
  const batches = Array.from({ length: training.steps }, (_, step) => `step.${step}.`);
  const loss = (one: PretrainedModel, batch: string): Tensor => {
    const { input, options } = inputs(host, batch, device);
    return one.forward(input, options).loss as Tensor;
  };
  return { batches, loss };
}

async function trainsMerged(t: Assertions, device: TestDevice): Promise<void> {
  const { folder, figures, host } = await read("gpt2");
  const { r, loraAlpha, training } = figures.merged as NonNullable<Figures["merged"]>;
  const model = await loadModel(goldenModel(folder), { device });
  t.true(model instanceof GPT2LMHeadModel);
  const parameters = new Map<string, Tensor>();
  for (const [i, { attn }] of (model as GPT2LMHeadModel).transformer.h.entries()) {
    const enableLora = [true, false, true];
    const layer = lora.MergedLinear.fromBase(attn.c_attn, { r, loraAlpha, enableLora, mergeWeights: false });
    attn.c_attn = layer;
    for (const [which, one] of Object.entries({ A: layer.loraA as Tensor, B: layer.loraB as Tensor })) {
      const name = `transformer.h.${i}.attn.c_attn.lora_${which}.weight`;
      one.copy(tensor(hashed(name, one.shape), { shape: one.shape, device }));
      parameters.set(name, one);
    }
  }
  lora.markOnlyLoraAsTrainable(model);
  const { logits } = await outputs(model, host, device);
  const off = error(logits, host["merged.logits"]?.data ?? []);
  t.true(off < 1e-5, `logits are off by ${off}`);
  const end = Object.fromEntries([...parameters.keys()].map((key) => [key, host[`merged.${key}`] as Golden]));
  const steps = {
    training,
    parameters,
    host,
    prefix: "merged.grad.",
    end,
    ...stepsOf(host, training, device),
  };
  await tenSteps(t, model as PretrainedModel, steps);
  model.dispose();
}
