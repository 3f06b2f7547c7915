/**
 * Losses, norms, gradients and adapters against PyTorch and PEFT in float64 (README.md). A bound of 1e-5 of a tensor's
 * largest value leaves a factor of ten over what PyTorch's own float32 is off; norms after the first step gather the
 * differences of the steps before them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import { loadModel, lora, optim, safetensors, scope, tensor, Trainer, type Tensor } from "../../src/index.js";
import { adapterState } from "../../src/lora/state.js";
import type { CausalLM } from "../../src/models/causal-lm.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel } from "../hashed.js";
import { error, goldens, onHost } from "./goldens.js";

interface Golden {
  loss: number;
  training?: {
    steps: number;
    warmup: number;
    lr: number;
    weight_decay: number;
    losses: number[];
    gradNorms: number[];
    learningRates: number[];
  };
  accumulation?: { trained: number[]; loss: number; gradNorm: number };
}

/** A golden's folder, its figures and its tensors, on the host. */
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

/** The sum over a batch's trained labels, divided by `count`. */
function meanLoss(model: CausalLM, batch: Batch, count = trained(batch)): Tensor {
  const ids = tensor(batch.ids, { shape: batch.shape, device: model.device });
  return model.lossSum(ids, batch.labels, 1 / count);
}

function backward(model: CausalLM, batch: Batch, count: number): Tensor {
  return scope(() => {
    const loss = meanLoss(model, batch, count);
    loss.backward();
    return loss.detach();
  });
}

function trainedParameters(model: CausalLM): Tensor[] {
  return [...model.parameters()].filter((one) => one.requiresGrad);
}

async function take(one: Tensor): Promise<number> {
  const value = await one.item();
  one.dispose();
  return value;
}

/** Every gradient against `PREFIX` + its key; gives the largest error. */
async function gradientError(
  model: CausalLM,
  host: Record<string, { data: ArrayLike<number> }>,
  prefix: string,
): Promise<number> {
  const errors = [...adapterState(model, "default")].map(async ([key, parameter]) => {
    const grad = parameter.grad;
    const golden = host[`${prefix}${key}`];
    if (grad === null || golden === undefined) throw new Error(`no gradient of ${key}`);
    const data = await grad.data();
    grad.dispose();
    return error(data, golden.data);
  });
  return Math.max(...(await Promise.all(errors)));
}

for (const device of testDevices()) {
  for (const variant of ["tied", "untied-llama3", "mistral", "linear"]) {
    test(`${variant} on ${device}: logits and loss`, (t) => logitsAndLoss(t, variant, device));
  }
  for (const variant of ["tied", "untied-llama3"]) {
    test(`${variant} on ${device}: ten steps, each gradient of the first, the adapter`, (t) =>
      tenSteps(t, variant, device));
    test(`${variant} on ${device}: micro-batches average over the step's tokens`, (t) =>
      accumulates(t, variant, device));
  }
}

type Assertions = ExecutionContext;

async function logitsAndLoss(t: Assertions, variant: string, device: TestDevice): Promise<void> {
  const { folder, golden, host, batch } = await read(variant);
  const model = await loadModel(goldenModel(folder), { device });
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
  const model = await loadModel(goldenModel(folder), { device });
  await lora.loadAdapter(model, join(folder, "adapter-init"), { trainable: true });
  const before = error(await logits(model, batch("")), host["adapter_init_logits"]?.data ?? []);
  t.true(before < 1e-5, `logits with the first adapter are off by ${before}`);
  model.train();
  const first = batch("step.0.");
  backward(model, first, trained(first)).dispose();
  const gradientOff = await gradientError(model, host, "grad.");
  t.true(gradientOff < 1e-5, `a gradient is off by ${gradientOff}`);
  const { lr, weight_decay: weightDecay, warmup, steps: total } = training;
  const optimizer = new optim.AdamW(trainedParameters(model), { lr, weightDecay });
  optimizer.zeroGrad();
  const trainer = new Trainer({
    model,
    loss: (llama, one) => meanLoss(llama, one),
    data: Array.from({ length: total }, (_, step) => batch(`step.${step}.`)),
    optimizer,
    schedule: optim.schedule.linear({ warmup, total }),
    clipNorm: 1,
  });
  let [lossOff, normOff] = [0, 0];
  for await (const event of trainer) {
    if (event.type !== "step") continue;
    const step = event.step - 1;
    t.true(Math.abs(event.learningRate - (training.learningRates[step] as number)) < 1e-12);
    lossOff = Math.max(lossOff, Math.abs(event.loss / (training.losses[step] as number) - 1));
    const off = Math.abs(event.gradNorm / (training.gradNorms[step] as number) - 1);
    t.true(off < (step === 0 ? 1e-5 : 1e-4), `step ${step}: the norm is off by ${off}`);
    normOff = Math.max(normOff, off);
  }
  t.true(lossOff < 1e-5, `a loss is off by ${lossOff}`);
  const adapter = await adapterOff(model, join(folder, "adapter"));
  t.log(
    `gradients ${gradientOff.toExponential(1)}, losses ${lossOff.toExponential(1)}, norms ${normOff.toExponential(1)}, ` +
      `adapter ${adapter.largest.toExponential(1)}, ${adapter.share} of it within 1e-5`,
  );
  t.true(adapter.share >= 0.99, `${adapter.share} of the adapter's values are within 1e-5`);
  t.true(adapter.largest < 0.02 * training.lr, `a value of the adapter is off by ${adapter.largest}`);
  model.eval();
  optimizer.dispose();
  model.dispose();
}

/** What share of the values is within 1e-5, and how far the furthest is off. */
async function adapterOff(model: CausalLM, folder: string): Promise<{ share: number; largest: number }> {
  const golden = await safetensors.load(join(folder, "adapter_model.safetensors"), { device: "cpu" });
  let [close, all, largest] = [0, 0, 0];
  for (const [key, parameter] of adapterState(model, "default")) {
    const [ours, theirs] = [await parameter.data(), (await golden[key]?.data()) ?? []];
    for (let i = 0; i < ours.length; i++) {
      const off = Math.abs((ours[i] as number) - (theirs[i] as number));
      largest = Math.max(largest, off);
      if (off < 1e-5) close++;
    }
    all += ours.length;
  }
  for (const one of Object.values(golden)) one.dispose();
  return { share: close / all, largest };
}

async function accumulates(t: Assertions, variant: string, device: TestDevice): Promise<void> {
  const { folder, golden, host, batch } = await read(variant);
  const expected = golden.accumulation as NonNullable<Golden["accumulation"]>;
  const model = await loadModel(goldenModel(folder), { device });
  await lora.loadAdapter(model, join(folder, "adapter-init"), { trainable: true });
  model.train();
  const batches = [0, 1, 2].map((i) => batch(`micro.${i}.`));
  t.deepEqual(batches.map(trained), expected.trained);
  const count = expected.trained.reduce((sum, n) => sum + n, 0);
  for (const one of batches) backward(model, one, count).dispose();
  const off = await gradientError(model, host, "micro.grad.");
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
