/**
 * Ten steps of training compared with a golden: every gradient of the first, losses, norms, and the adapter at the
 * end.
 */
import { join } from "node:path";

import type { ExecutionContext } from "ava";
import { optim, scope, Trainer, type nn, type Tensor } from "../../src/index.js";
import { error, onHost, type Golden } from "./goldens.js";

/** A golden's description of its training. */
export interface Training {
  steps: number;
  warmup: number;
  lr: number;
  weight_decay: number;
  losses: number[];
  gradNorms: number[];
  learningRates: number[];
}

/** Returns a golden's adapter, by PEFT's keys. */
export function adapterEnd(folder: string): Promise<Record<string, Golden>> {
  return onHost(join(folder, "adapter", "adapter_model.safetensors"));
}

export function trainedParameters(model: nn.Module): Tensor[] {
  return [...model.parameters()].filter((one) => one.requiresGrad);
}

/** Compares every gradient with `prefix` + its key; returns the largest error. */
export async function gradientError(
  parameters: ReadonlyMap<string, Tensor>,
  host: Record<string, Golden>,
  prefix: string,
): Promise<number> {
  const errors = [...parameters].map(async ([key, parameter]) => {
    const grad = parameter.grad;
    const golden = host[`${prefix}${key}`];
    if (grad === null || golden === undefined) throw new Error(`no gradient of ${key}`);
    const data = await grad.data();
    grad.dispose();
    return error(data, golden.data);
  });
  return Math.max(...(await Promise.all(errors)));
}

/**
 * Trains `parameters` on `batches`, with `loss` the mean over a batch. Compares the gradients of the first step
 * with `host`'s under `prefix`, and the final parameters with `end`.
 */
export async function tenSteps<M extends nn.Module, B>(
  t: ExecutionContext,
  model: M,
  given: {
    training: Training;
    parameters: ReadonlyMap<string, Tensor>;
    host: Record<string, Golden>;
    prefix?: string;
    end: Record<string, Golden>;
    batches: B[];
    loss: (model: M, batch: B) => Tensor;
  },
): Promise<void> {
  const { training, parameters, host, prefix = "grad.", end, batches, loss } = given;
  model.train();
  scope(() => loss(model, batches[0] as B).backward());
  const gradientOff = await gradientError(parameters, host, prefix);
  t.true(gradientOff < 1e-5, `a gradient is off by ${gradientOff}`);
  const { lr, weight_decay: weightDecay, warmup, steps: total } = training;
  const optimizer = new optim.AdamW(trainedParameters(model), { lr, weightDecay });
  optimizer.zeroGrad();
  const trainer = new Trainer({
    model,
    loss,
    data: batches,
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
  const adapter = await endOff(parameters, end);
  t.log(
    `gradients ${gradientOff.toExponential(1)}, losses ${lossOff.toExponential(1)}, norms ${normOff.toExponential(1)}, ` +
      `adapter ${adapter.largest.toExponential(1)}, ${adapter.share} of it within 1e-5`,
  );
  t.true(adapter.share >= 0.99, `${adapter.share} of the adapter's values are within 1e-5`);
  t.true(adapter.largest < 0.02 * training.lr, `a value of the adapter is off by ${adapter.largest}`);
  model.eval();
  optimizer.dispose();
}

/** Returns the share of values within 1e-5, and the largest error. */
async function endOff(
  parameters: ReadonlyMap<string, Tensor>,
  end: Record<string, Golden>,
): Promise<{ share: number; largest: number }> {
  let [close, all, largest] = [0, 0, 0];
  for (const [key, parameter] of parameters) {
    const [ours, theirs] = [await parameter.data(), end[key]?.data ?? []];
    for (let i = 0; i < ours.length; i++) {
      const off = Math.abs((ours[i] as number) - (theirs[i] as number));
      largest = Math.max(largest, off);
      if (off < 1e-5) close++;
    }
    all += ours.length;
  }
  return { share: close / all, largest };
}
