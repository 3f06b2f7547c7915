/**
 * Makes the embedded model: trains its tokenizer and its weights with this engine on State of the Union addresses. The
 * same seed on the same device gives the same files.
 *
 *   npx tsx models/default/pretrain/main.ts [--steps N] [--output DIR] [--device D] [--seed N]
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import {
  LlamaForCausalLM,
  loadModel,
  manualSeed,
  noGrad,
  optim,
  saveModel,
  scope,
  tensor,
  Tokenizer,
} from "../../../src/index.js";
import { resolveDevice, type Device } from "../../../src/device/device.js";
import { native } from "../../../src/native/binding.js";
import { addresses } from "./text.js";

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: "2400" },
    output: { type: "string", default: fileURLToPath(new URL("..", import.meta.url)) },
    device: { type: "string", default: "cpu" },
    seed: { type: "string", default: "0" },
    /** Continues from the weights in the output folder, to measure the gain of more steps. */
    continue: { type: "boolean", default: false },
  },
});
const steps = Number(values.steps);
const seed = Number(values.seed);
const device = resolveDevice(values.device as Device);

const VOCABULARY = 2048;
const LENGTH = 256;
const BATCH = 16;
const LEARNING_RATE = 4e-3;
const WARM_UP = 100;
/** The fraction of steps at the end in which the learning rate decays to 0. */
const DECAY = 0.3;

const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: VOCABULARY,
  hidden_size: 128,
  intermediate_size: 384,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: LENGTH,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: "silu",
  tie_word_embeddings: true,
  bos_token_id: null,
  eos_token_id: 0,
  torch_dtype: "float32",
};

/** Concatenates tokenised texts, each followed by the end token. */
function stream(tokenizer: Tokenizer, texts: string[]): { ids: Int32Array; bytes: number } {
  const parts = texts.map((text) => tokenizer.encode(text));
  const ids = new Int32Array(parts.reduce((n, p) => n + p.length + 1, 0));
  let at = 0;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length + 1;
  }
  return { ids, bytes: texts.reduce((n, t) => n + Buffer.byteLength(t), 0) };
}

/** Returns the mean loss over whole blocks of the held-out stream. */
async function heldOut(model: LlamaForCausalLM, ids: Int32Array): Promise<number> {
  let [sum, tokens] = [0, 0];
  for (let at = 0; at + LENGTH <= ids.length; at += LENGTH * BATCH) {
    const rows = Math.min(BATCH, Math.floor((ids.length - at) / LENGTH));
    const block = ids.slice(at, at + rows * LENGTH);
    const loss = noGrad(() =>
      scope(() => model.loss(tensor(block, { shape: [rows, LENGTH], device }), block, { reduction: "sum" })),
    );
    sum += await loss.item();
    loss.dispose();
    tokens += rows * (LENGTH - 1);
  }
  return sum / tokens;
}

mkdirSync(values.output, { recursive: true });
const texts = addresses();
const tokenizerFile = join(values.output, "tokenizer.json");
if (!values.continue) {
  const failure = await native().trainBpe(texts.train, VOCABULARY, ["</s>"], tokenizerFile);
  if (failure !== null) throw new Error(failure.message);
}
const tokenizer = new Tokenizer(tokenizerFile);
const train = stream(tokenizer, texts.train);
const held = stream(tokenizer, texts.held);
console.log(`${train.ids.length} tokens to train on, ${held.ids.length} held out`);

manualSeed(seed);
const model = values.continue
  ? ((await loadModel(values.output, { device, dtype: "f32" })) as LlamaForCausalLM)
  : LlamaForCausalLM.fromConfig(CONFIG, { device });
for (const [, parameter] of Object.entries(model.stateDict()))
  if (!parameter.requiresGrad) parameter.requiresGrad = true;
model.train();
const optimizer = new optim.AdamW([...new Set(Object.values(model.stateDict()))], {
  lr: LEARNING_RATE,
  betas: [0.9, 0.95],
  weightDecay: 0.1,
});

/** The learning rate's factor: warm-up, a plateau, linear decay. */
function factor(step: number): number {
  return Math.min(1, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps));
}

console.log(`held-out loss before: ${(await heldOut(model, held.ids)).toFixed(4)}`);
// Random window positions from a separate generator, so that they depend only on the seed.
let state = seed * 2654435761 + 12345;
function draw(n: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
}
const began = performance.now();
for (let step = 0; step < steps; step++) {
  const ids = new Int32Array(BATCH * LENGTH);
  for (let b = 0; b < BATCH; b++) {
    const at = draw(train.ids.length - LENGTH);
    ids.set(train.ids.subarray(at, at + LENGTH), b * LENGTH);
  }
  for (const group of optimizer.groups) group.lr = LEARNING_RATE * factor(step);
  const loss = scope(() => {
    const loss = model.loss(tensor(ids, { shape: [BATCH, LENGTH], device }), ids);
    loss.backward();
    return loss.detach();
  });
  optimizer.stepClipped(1).dispose();
  optimizer.zeroGrad();
  const value = await loss.item();
  loss.dispose();
  if (step % 20 === 0 || step === steps - 1) {
    const seconds = (performance.now() - began) / 1000;
    const rate = ((step + 1) * BATCH * LENGTH) / seconds;
    console.log(
      `step ${step + 1}/${steps}  loss ${value.toFixed(4)}  ${rate.toFixed(0)} tokens/s  ${seconds.toFixed(0)} s`,
    );
  }
  if ((step + 1) % 400 === 0)
    console.log(`held-out loss after ${step + 1}: ${(await heldOut(model, held.ids)).toFixed(4)}`);
}
const loss = await heldOut(model, held.ids);
const bits = (loss * held.ids.length) / held.bytes / Math.log(2);
console.log(`held-out loss: ${loss.toFixed(4)} (${bits.toFixed(3)} bits per byte)`);

if (!values.continue) {
  model.folder = undefined;
  const beside = join(values.output, "weights");
  await saveModel(model, beside, { dtype: "f16", overwrite: true });
  const { renameSync, rmSync } = await import("node:fs");
  for (const file of ["model.safetensors", "config.json"])
    renameSync(join(beside, file), join(values.output, file));
  rmSync(beside, { recursive: true });
  writeFileSync(
    join(values.output, "pretrain", "figures.json"),
    `${JSON.stringify({ steps, seed, heldOutLoss: loss, bitsPerByte: bits, tokens: steps * BATCH * LENGTH }, null, 2)}\n`,
  );
}
