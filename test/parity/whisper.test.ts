/**
 * Whisper compared with transformers and PEFT in float64 (README.md): encoder outputs, logits, hidden states, loss,
 * ten LoRA steps, and greedy tokens from features and from speech. The bounds are those in llama.test.ts.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  loadModel,
  lora,
  safetensors,
  scope,
  tensor,
  WhisperForConditionalGeneration,
  type SpeechToText,
  type Tensor,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import type { Tokenizer } from "../../src/models/tokenizer.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";
import { hashedFeatures, hashedSpeech } from "./speech.js";
import { adapterEnd, tenSteps, type Training } from "./training.js";

const folder = join(goldens, "whisper");
const [MELS, FRAMES] = [12, 100];

interface Text {
  key: string;
  /** Samples of speech; 0 if the key is for features. */
  length: number;
  generation: "multilingual" | "english";
  options: { language?: string; task?: "translate" };
  prefix: number[];
  tokens: number[];
}

const figures = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8")) as {
  loss: number;
  training: Training;
  generation: Record<Text["generation"], object>;
  texts: Text[];
};

type Host = Record<string, Golden>;
const host: Promise<Host> = onHost(join(folder, "golden.safetensors"));

/** Loads the golden's model, with the initial tokens of its texts. */
async function load(
  device: TestDevice,
  generation: Text["generation"] = "multilingual",
): Promise<WhisperForConditionalGeneration> {
  const place = goldenModel(folder);
  writeFileSync(join(place, "generation_config.json"), JSON.stringify(figures.generation[generation]));
  const model: SpeechToText = await loadModel(place, { device, task: "speech-to-text" });
  return model as WhisperForConditionalGeneration;
}

function features(key: string, device: TestDevice, rows = 2): Tensor {
  return tensor(hashedFeatures(key, rows * MELS * FRAMES), { shape: [rows, MELS, FRAMES], device });
}

function labelsOf(all: Host, name: string, device: TestDevice): Tensor {
  const { data, shape } = all[name] as Golden;
  return tensor(data, { shape, device });
}

async function check(
  t: { true(value: boolean, message?: string): unknown; log(text: string): void },
  model: WhisperForConditionalGeneration,
  device: TestDevice,
): Promise<void> {
  const all = await host;
  const encoded = scope(() => model.model.encoder.forward(features("base", device)));
  const out = scope(() => {
    const { hidden, loss, logits } = model.forward(features("base", device), {
      labels: labelsOf(all, "labels", device),
    });
    return { hidden, loss: loss as Tensor, logits };
  });
  const off = await Promise.all(
    Object.entries({ encoded, hidden: out.hidden, logits: out.logits }).map(async ([name, one]) =>
      error(await one.data(), (all[name] as Golden).data),
    ),
  );
  t.log(`encoder, hidden and logits ${off.map((e) => e.toExponential(1)).join(", ")}`);
  t.true(Math.max(...off) < 1e-5, `encoder, hidden states and logits are off by ${off.join(", ")}`);
  const loss = await out.loss.item();
  t.true(Math.abs(loss / figures.loss - 1) < 1e-5, `the loss is ${loss}, not ${figures.loss}`);
}

for (const device of testDevices()) {
  test(`on ${device}: encoder, hidden states, logits and loss`, async (t) => {
    const model = await load(device);
    await check(t, model, device);
    const all = await host;
    const { data } = all["labels"] as Golden;
    // Labels unknown to the host, with given decoder ids.
    const ids = tensor(shifted(data as Int32Array), { shape: [2, 9], device });
    const run = scope(() => {
      const known = model.loss(features("base", device), data as Int32Array);
      const moved = labelsOf(all, "labels", device).add(0).to("i32");
      return {
        known,
        unknown: model.loss(features("base", device), moved),
        logits: model.forward(features("base", device), { decoderInputIds: ids }).logits,
        apart: model.loss(features("base", device), data as Int32Array, { reduction: "none" }),
      };
    });
    for (const one of [run.known, run.unknown])
      t.true(Math.abs((await one.item()) / figures.loss - 1) < 1e-5);
    t.true(error(await run.logits.data(), (all["logits"] as Golden).data) < 1e-5);
    t.deepEqual(run.apart.shape, [2, 9]);
    const losses = (await run.apart.data()) as Float32Array;
    t.true(data.every((label, i) => label !== -100 || losses[i] === 0));
    const counted = data.filter((label) => label !== -100).length;
    const mean = losses.reduce((sum, one) => sum + one, 0) / counted;
    t.true(Math.abs(mean / figures.loss - 1) < 1e-5);
    model.dispose();
  });

  test(`on ${device}: made from its configuration, and filled`, async (t) => {
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as object;
    const model = WhisperForConditionalGeneration.fromConfig(config, { device });
    const files = await safetensors.load(join(goldenModel(folder), "model.safetensors"));
    const state = Object.keys(model.stateDict()).map((name): [string, Tensor] => {
      // The file contains the tied head once.
      const tied = name === "proj_out.weight" ? "model.decoder.embed_tokens.weight" : name;
      return [name, (files[tied] as Tensor).to(device)];
    });
    model.loadStateDict(Object.fromEntries(state));
    await check(t, model.eval(), device);
    model.dispose();
  });

  test(`on ${device}: ten steps, each gradient of the first, the adapter`, async (t) => {
    const all = await host;
    const model = await load(device);
    await lora.loadAdapter(model, join(folder, "adapter-init"), { trainable: true });
    const out = scope(
      () => model.forward(features("base", device), { labels: labelsOf(all, "labels", device) }).logits,
    );
    const before = error(await out.data(), (all["adapter_init_logits"] as Golden).data);
    t.true(before < 1e-5, `logits with the first adapter are off by ${before}`);
    const parameters = collectAdapterState(model, "default");
    t.is(parameters.size, 2 * 2 * (2 + 2 * 3));
    await tenSteps(t, model, {
      training: figures.training,
      parameters,
      host: all,
      end: await adapterEnd(folder),
      batches: Array.from({ length: figures.training.steps }, (_, step) => `step.${step}`),
      loss: (one, key) => one.loss(features(key, device), labelsOf(all, `${key}.labels`, device)),
    });
    model.dispose();
  });

  test(`on ${device}: greedy tokens are transformers', by language, task and suppressed tokens`, async (t) => {
    for (const generation of ["multilingual", "english"] as const) {
      const model = await load(device, generation);
      model.tokenizer = { decode: (ids: number[]) => ids.join(" ") } as unknown as Tokenizer;
      const own = model.features.bind(model);
      for (const { key, length, options, prefix, tokens, ...text } of figures.texts) {
        if (text.generation !== generation) continue;
        const samples = length === 0 ? Float32Array.of(0) : hashedSpeech(key, length);
        model.features = length === 0 ? () => features(key, device, 1) : own;
        const told = { maxNewTokens: 20, ...options };
        const heard = await model.transcribe(samples, told);
        t.deepEqual(heard.tokens, tokens, `${key} ${JSON.stringify(options)}`);
        t.is(heard.text, tokens.join(" "));
        const language = heard.language && model.config.generation.languages.get(heard.language);
        t.is(language, generation === "english" ? undefined : prefix[1]);
      }
      model.dispose();
    }
  });
}

function shifted(labels: Int32Array): Int32Array {
  return labels.map((_, i) => {
    const before = i % 9 === 0 ? 90 : (labels[i - 1] as number);
    return before === -100 ? 45 : before;
  });
}
