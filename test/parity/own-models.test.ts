/**
 * User-defined models, written with the package's public API, compared with PyTorch in float64 (README.md): the
 * losses of twelve steps of AdamW with clipping, by a loop and by `Trainer`. A step has some roundings of f32, 1e-7
 * each, which accumulate; 1e-5 of a loss is a hundred of them. A wrong gradient of one layer changes the loss by a
 * thousand times that after a step.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { nn, optim, scope, tensor, Trainer, type Tensor } from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { hashed, words } from "../hashed.js";
import { goldens } from "./goldens.js";
import {
  BATCH,
  CharTransformer,
  CLASSES,
  CNN,
  LSTMLanguageModel,
  TIME,
  VOCABULARY,
  type Options,
} from "./own-models.js";

type Name = "cnn" | "char_transformer" | "lstm";
type Model = nn.Module & { forward(x: Tensor): Tensor };

interface Batch {
  input: Tensor;
  target: Tensor;
}

const { losses } = JSON.parse(readFileSync(join(goldens, "own_models.json"), "utf8")) as {
  losses: Record<Name, number[]>;
};

const MODELS: Record<Name, new (options: Options) => Model> = {
  cnn: CNN,
  char_transformer: CharTransformer,
  lstm: LSTMLanguageModel,
};

/** Returns the model, with its parameters filled by their names. */
function build(name: Name, device: TestDevice): Model {
  const model = new MODELS[name]({ device });
  const filled = [...model.namedParameters()].map(
    ([key, { shape }]) => [key, tensor(hashed(`${name}.${key}`, shape), { shape, device })] as const,
  );
  model.loadStateDict(Object.fromEntries(filled), { strict: false });
  return model;
}

function integers(name: string, count: number, below: number): Int32Array {
  return Int32Array.from(words(name, count), (word) => (word >>> 8) % below);
}

/** Returns the batch of a step; a language model's target is the next token. */
function batchOf(name: Name, step: number, device: TestDevice): Batch {
  if (name === "cnn") {
    const shape = [BATCH, 2, 8, 8];
    const input = tensor(hashed(`cnn.${step}.x`, shape), { shape, device });
    return { input, target: tensor(integers(`cnn.${step}.y`, BATCH, CLASSES), { device }) };
  }
  const ids = integers(`${name}.${step}.ids`, BATCH * (TIME + 1), VOCABULARY);
  const all = tensor(ids, { shape: [BATCH, TIME + 1], device });
  return { input: all.slice(1, 0, TIME), target: all.slice(1, 1) };
}

function lossOf(model: Model, { input, target }: Batch): Tensor {
  const logits = model.forward(input);
  return logits.reshape(-1, logits.shape.at(-1) as number).crossEntropy(target.reshape(-1));
}

const OPTIONS = { lr: 0.01, weightDecay: 0.01 };

async function byHand(name: Name, device: TestDevice): Promise<number[]> {
  const model = build(name, device);
  const optimizer = new optim.AdamW(model.parameters(), OPTIONS);
  const found: Tensor[] = [];
  for (let step = 0; step < losses[name].length; step++) {
    const loss = scope(() => {
      const loss = lossOf(model, batchOf(name, step, device));
      loss.backward();
      return loss.detach();
    });
    optim.clipGradNorm(model.parameters(), 1).dispose();
    optimizer.step();
    optimizer.zeroGrad();
    found.push(loss);
  }
  const values = await Promise.all(found.map((loss) => loss.item()));
  optimizer.dispose();
  model.dispose();
  return values;
}

async function byTrainer(name: Name, device: TestDevice): Promise<number[]> {
  const model = build(name, device);
  const optimizer = new optim.AdamW(model.parameters(), OPTIONS);
  const data = function* (): Generator<Batch> {
    for (let step = 0; step < losses[name].length; step++) yield batchOf(name, step, device);
  };
  const found: number[] = [];
  await using trainer = new Trainer({ model, optimizer, loss: lossOf, data });
  for await (const event of trainer) if (event.type === "step") found.push(event.loss);
  optimizer.dispose();
  model.dispose();
  return found;
}

for (const device of testDevices()) {
  for (const name of Object.keys(MODELS) as Name[]) {
    for (const [how, run] of Object.entries({ "a loop": byHand, Trainer: byTrainer })) {
      test.serial(`${name} on ${device} by ${how} learns as PyTorch's`, async (t) => {
        const found = await run(name, device);
        t.is(found.length, losses[name].length);
        for (const [step, golden] of losses[name].entries()) {
          const off = Math.abs((found[step] as number) - golden) / golden;
          t.true(off <= 1e-5, `step ${step}: ${found[step]} for ${golden}`);
        }
      });
    }
  }
}
