/**
 * Losses, norms, gradients and adapters compared with PyTorch and PEFT in float64 (README.md). A bound of 1e-5 of a
 * tensor's largest value is ten times the error of PyTorch's own float32; norms after the first step accumulate the
 * differences of the steps before them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import {
  Gemma3ForCausalLM,
  LlamaForCausalLM,
  loadModel,
  lora,
  optim,
  Phi3ForCausalLM,
  safetensors,
  scope,
  tensor,
  Trainer,
  type CausalLM,
  type Gemma3ConfigFields,
  type LlamaConfigFields,
  type Phi3ConfigFields,
  type Tensor,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel } from "../hashed.js";
import { error, goldens, onHost } from "./goldens.js";
import {
  adapterEnd,
  gradientError,
  tenSteps as checkSteps,
  trainedParameters,
  type Training,
} from "./training.js";

interface Golden {
  loss: number;
  training?: Training;
  accumulation?: { trained: number[]; loss: number; gradNorm: number };
}

/** Reads a golden's folder, its figures and its tensors, onto the host. */
async function read(variant: string) {
  const folder = join(goldens, `llama-${variant}`);
  const golden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8")) as Golden;
  const host = await onHost(join(folder, "golden.safetensors"));
  const batch = (name: string) => {
    const [ids, labels] = [host[`${name}ids`], host[`${name}labels`]];
    if (ids === undefined || labels === undefined) throw new Error(`no batch ${name}`);
    return {
      ids: ids.data as Int32Array,
      labels: labels.data as Int32Array,
      shape: ids.shape as [number, number],
    };
  };
  return { folder, golden, host, batch };
}

type Batch = ReturnType<Awaited<ReturnType<typeof read>>["batch"]>;

function trained({ labels, shape: [, T] }: Batch): number {
  return labels.reduce((n, label, i) => n + (i % T !== 0 && label !== -100 ? 1 : 0), 0);
}

async function logits(model: CausalLM, { ids, shape }: Batch): Promise<Float32Array> {
  const out = scope(() => model.forward(tensor(ids, { shape, device: model.device })).logits);
  const data = (await out.data()) as Float32Array;
  out.dispose();
  return data;
}

/** Returns the sum over a batch's trained labels, divided by `count`. */
function meanLoss(model: CausalLM, batch: Batch, count = trained(batch)): Tensor {
  const ids = tensor(batch.ids, { shape: batch.shape, device: model.device });
  return model.loss(ids, batch.labels, { reduction: "sum" }).mul(1 / count);
}

function backward(model: CausalLM, batch: Batch, count: number): Tensor {
  return scope(() => {
    const loss = meanLoss(model, batch, count);
    loss.backward();
    return loss.detach();
  });
}

async function take(one: Tensor): Promise<number> {
  const value = await one.item();
  one.dispose();
  return value;
}

for (const device of testDevices()) {
  for (const variant of [
    "tied",
    "untied-llama3",
    "mistral",
    "linear",
    "dynamic",
    "qwen2",
    "qwen3",
    "gemma3",
    "gemma3-capped",
    "phi3",
    "phi3-long",
  ]) {
    test(`${variant} on ${device}: logits and loss`, (t) =>
      logitsAndLoss(t, variant, device, loadModel<"causal-lm">));
    test(`${variant} on ${device}: made from its configuration, and filled`, (t) =>
      logitsAndLoss(t, variant, device, filled));
  }
  for (const variant of ["tied", "untied-llama3", "qwen2", "qwen3", "gemma3", "gemma3-capped", "phi3"]) {
    test(`${variant} on ${device}: ten steps, each gradient of the first, the adapter`, (t) =>
      tenSteps(t, variant, device));
    test(`${variant} on ${device}: micro-batches average over the step's tokens`, (t) =>
      accumulates(t, variant, device));
  }
}

type Assertions = ExecutionContext;

type Make = (folder: string, options: { device: TestDevice }) => Promise<CausalLM>;

function fresh(config: { model_type: string }, options: { device: TestDevice }): CausalLM {
  const fields = config as unknown;
  if (config.model_type === "gemma3_text")
    return Gemma3ForCausalLM.fromConfig(fields as Gemma3ConfigFields, options);
  if (config.model_type === "phi3") return Phi3ForCausalLM.fromConfig(fields as Phi3ConfigFields, options);
  return LlamaForCausalLM.fromConfig(fields as LlamaConfigFields, options);
}

/** Creates a model from a folder's configuration alone, and then loads its weights. */
async function filled(folder: string, options: { device: TestDevice }): Promise<CausalLM> {
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as { model_type: string };
  const model = fresh(config, options).eval();
  const files = await safetensors.load(join(folder, "model.safetensors"));
  const state = Object.keys(model.stateDict()).map((name): [string, Tensor] => {
    // The file contains a tied head once.
    const one = (files[name] ?? files["model.embed_tokens.weight"]) as Tensor;
    return [name, one.to(options.device)];
  });
  model.loadStateDict(Object.fromEntries(state));
  return model;
}

async function logitsAndLoss(t: Assertions, variant: string, device: TestDevice, make: Make): Promise<void> {
  const { folder, golden, host, batch } = await read(variant);
  const model = await make(goldenModel(folder), { device });
  const base = batch("");
  const off = error(await logits(model, base), host["logits"]?.data ?? []);
  const loss = await take(scope(() => meanLoss(model, base)));
  t.log(`logits ${off.toExponential(1)}, loss ${Math.abs(loss / golden.loss - 1).toExponential(1)}`);
  t.true(off < 1e-5, `logits are off by ${off}`);
  t.true(Math.abs(loss / golden.loss - 1) < 1e-5, `the loss is ${loss}, not ${golden.loss}`);
  model.dispose();
}

async function tenSteps(t: Assertions, variant: string, device: TestDevice): Promise<void> {
  const { folder, golden, host, batch } = await read(variant);
  const training = golden.training as NonNullable<Golden["training"]>;
  const model = await loadModel<"causal-lm">(goldenModel(folder), { device });
  await lora.loadAdapter(model, join(folder, "adapter-init"), { trainable: true });
  const before = error(await logits(model, batch("")), host["adapter_init_logits"]?.data ?? []);
  t.true(before < 1e-5, `logits with the first adapter are off by ${before}`);
  const batches = Array.from({ length: training.steps }, (_, step) => batch(`step.${step}.`));
  const parameters = collectAdapterState(model, "default");
  const end = await adapterEnd(folder);
  const loss = (llama: CausalLM, one: Batch): Tensor => meanLoss(llama, one);
  await checkSteps(t, model, { training, parameters, host, end, batches, loss });
  model.dispose();
}

async function accumulates(t: Assertions, variant: string, device: TestDevice): Promise<void> {
  const { folder, golden, host, batch } = await read(variant);
  const expected = golden.accumulation as NonNullable<Golden["accumulation"]>;
  const model = await loadModel<"causal-lm">(goldenModel(folder), { device });
  await lora.loadAdapter(model, join(folder, "adapter-init"), { trainable: true });
  model.train();
  const batches = [0, 1, 2].map((i) => batch(`micro.${i}.`));
  t.deepEqual(batches.map(trained), expected.trained);
  const count = expected.trained.reduce((sum, n) => sum + n, 0);
  for (const one of batches) backward(model, one, count).dispose();
  const off = await gradientError(collectAdapterState(model, "default"), host, "micro.grad.");
  t.true(off < 1e-5, `a gradient is off by ${off}`);
  const optimizer = new optim.SGD(trainedParameters(model), { lr: 0 });
  optimizer.zeroGrad();
  const loss = (llama: CausalLM, one: Batch): Tensor => meanLoss(llama, one);
  const run = { model, loss, data: batches, optimizer, gradientAccumulation: 3, weight: trained };
  for await (const event of new Trainer(run)) {
    if (event.type !== "step") continue;
    const [off, norm] = [event.loss / expected.loss - 1, event.gradNorm / expected.gradNorm - 1];
    t.true(Math.abs(off) < 1e-5, `the loss is ${event.loss}, not ${expected.loss}`);
    t.true(Math.abs(norm) < 1e-5, `the norm is ${event.gradNorm}, not ${expected.gradNorm}`);
  }
  optimizer.dispose();
  model.dispose();
}
