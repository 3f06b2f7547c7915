/** Whisper: loading, refusals, and transcriptions of speech that is longer than a window. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import {
  full,
  loadModel,
  lora,
  LowrankError,
  manualSeed,
  safetensors,
  saveModel,
  scope,
  SpeechToText,
  tensor,
  WhisperForConditionalGeneration,
  zeros,
  type ErrorCode,
  type LoadOptions,
  type Tensor,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import type { Tokenizer } from "../../src/models/tokenizer.js";
import { writeWhisperConfig, readWhisperConfig } from "../../src/models/whisper/config.js";
import { resolveLanguage } from "../../src/models/whisper/languages.js";
import { testDevices } from "../devices.js";
import { goldenModel, hashed, temporary } from "../hashed.js";
import { error, goldens } from "../parity/goldens.js";
import { hashedFeatures, hashedSpeech } from "../parity/speech.js";
import { stepLosses } from "./trained.js";

const golden = join(goldens, "whisper");
const { generation, weights } = JSON.parse(readFileSync(join(golden, "golden.json"), "utf8")) as {
  generation: Record<"multilingual" | "english", Record<string, unknown>>;
  weights: Record<string, number[]>;
};
const PREPROCESSOR = {
  chunk_length: 1,
  feature_extractor_type: "WhisperFeatureExtractor",
  feature_size: 12,
  hop_length: 160,
  n_fft: 400,
  n_samples: 16_000,
  nb_max_frames: 100,
  padding_side: "right",
  padding_value: 0.0,
  processor_class: "WhisperProcessor",
  return_attention_mask: false,
  sampling_rate: 16_000,
};

/** Returns the golden's folder, with the given text and feature configuration. */
function folderOf(
  config: Record<string, unknown> = {},
  files: Record<string, object> = { "generation_config.json": generation.multilingual },
): string {
  const folder = goldenModel(golden, config);
  for (const [name, value] of Object.entries(files)) writeFileSync(join(folder, name), JSON.stringify(value));
  return folder;
}

async function load(folder: string, options: LoadOptions<"speech-to-text"> = {}) {
  const notices: string[] = [];
  const onNotice = (text: string): void => void notices.push(text);
  const model = await loadModel(folder, { device: "cpu", task: "speech-to-text", onNotice, ...options });
  return { model: model as WhisperForConditionalGeneration, notices };
}

async function refused(t: ExecutionContext, run: () => unknown, code: ErrorCode, message: RegExp) {
  // eslint-disable-next-line @typescript-eslint/require-await
  const found = await t.throwsAsync(async () => run(), { instanceOf: LowrankError, message });
  t.is(found?.code, code, String(message));
}

const spaced = { decode: (ids: number[]) => ids.map((id) => ` ${id}`).join("") } as unknown as Tokenizer;
const LABELS = Int32Array.from({ length: 18 }, (_, i) => (i % 7 === 3 ? -100 : (i * 5) % 97));

function features(): Tensor {
  return tensor(hashedFeatures("base", 2 * 12 * 100), { shape: [2, 12, 100], device: "cpu" });
}

async function logits(model: SpeechToText): Promise<Float32Array> {
  const out = scope(() => model.forward(features(), { labels: LABELS }).logits);
  return (await out.data()) as Float32Array;
}

test("a saved model has transformers' tensor names and its folder's files, and loads unchanged", async (t) => {
  const files = {
    "generation_config.json": generation.multilingual,
    "preprocessor_config.json": PREPROCESSOR,
  };
  const { model, notices } = await load(folderOf({}, files));
  t.deepEqual(notices, []);
  t.true(model instanceof WhisperForConditionalGeneration && model instanceof SpeechToText);
  const saved = join(temporary(), "saved");
  await saveModel(model, saved);
  const before = await logits(model);
  model.dispose();
  t.deepEqual(safetensors.openWeights(saved).names().sort(), Object.keys(weights).sort());
  t.deepEqual(readdirSync(saved).sort(), [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
  ]);
  const again = await load(saved);
  t.deepEqual(again.notices, []);
  t.deepEqual(await logits(again.model), before);
  again.model.dispose();
});

test("tensor names without their prefix, and a tied head that the file contains as well", async (t) => {
  const folder = goldenModel(golden, {}, (name) => name.replace("model.", ""));
  const file = join(folder, "model.safetensors");
  const tensors = await safetensors.load(file, { device: "cpu" });
  tensors["proj_out.weight"] = tensors["decoder.embed_tokens.weight"] as Tensor;
  await safetensors.save(file, tensors);
  const [one, other] = [await load(folder), await load(folderOf())];
  t.deepEqual(one.notices, []);
  t.deepEqual(await logits(one.model), await logits(other.model));
  for (const { model } of [one, other]) model.dispose();
});

test("an untied head, and weights in half storage", async (t) => {
  const shape = { "proj_out.weight": [97, 32] };
  const untied = await load(goldenModel(golden, { tie_word_embeddings: false }, undefined, shape));
  t.not(untied.model.proj_out.weight, untied.model.getInputEmbedding().weight);
  const plain = await logits(untied.model);
  untied.model.dispose();
  const tied = await load(folderOf());
  t.true(error(await logits(tied.model), plain) > 0.1);
  const exact = await logits(tied.model);
  tied.model.dispose();
  for (const [dtype, bound] of [
    ["f16", 0.01],
    ["bf16", 0.06],
  ] as const) {
    const { model } = await load(folderOf(), { dtype });
    const off = error(await logits(model), exact);
    t.true(off > 0 && off < bound, `${dtype} is off by ${off}`);
    model.dispose();
  }
});

for (const device of testDevices()) {
  test(`on ${device} the model is trained from its configuration, and is bit-identical after saving and loading`, async (t) => {
    manualSeed(4);
    const config = JSON.parse(readFileSync(join(golden, "config.json"), "utf8")) as object;
    const model = WhisperForConditionalGeneration.fromConfig(config, { device });
    const frozen = [...model.namedParameters()].filter(([, one]) => !one.requiresGrad).map(([name]) => name);
    t.deepEqual(frozen, ["model.encoder.embed_positions.weight"]);
    const input = features().to(device);
    const losses = await stepLosses(model, () => model.loss(input, LABELS), { steps: 4, lr: 3e-3 });
    t.true((losses[3] as number) < (losses[0] as number), losses.join(", "));
    const folder = join(temporary(), "model");
    await saveModel(model, folder);
    const { model: loaded } = await load(folder, { device });
    const [own, other] = await Promise.all(
      [model.eval(), loaded].map((one) => scope(() => one.loss(input, LABELS)).item()),
    );
    t.is(own, other);
    for (const one of [model, loaded]) one.dispose();
  });
}

test("random weights are drawn as in transformers: the encoder's positions are sines and cosines", async (t) => {
  const config = JSON.parse(readFileSync(join(golden, "config.json"), "utf8")) as object;
  const model = WhisperForConditionalGeneration.fromConfig({ ...config, init_std: 0.5 }, { device: "cpu" });
  const { encoder, decoder } = model.model;
  const table = await encoder.embed_positions.weight.data();
  for (const [position, c] of [
    [0, 0],
    [0, 16],
    [7, 3],
    [49, 31],
  ] as const) {
    const angle = position * Math.exp((-Math.log(10_000) * (c % 16)) / 15);
    t.is(table[position * 32 + c], Math.fround(c < 16 ? Math.sin(angle) : Math.cos(angle)));
  }
  const embedding = (await decoder.embed_tokens.weight.data()) as Float32Array;
  t.true(embedding.subarray(45 * 32, 46 * 32).every((one) => one === 0));
  const conv = (await encoder.conv2.weight.data()) as Float32Array;
  const deviation = Math.sqrt(conv.reduce((sum, one) => sum + one * one, 0) / conv.length);
  t.true(Math.abs(deviation / 0.5 - 1) < 6 / Math.sqrt(2 * conv.length), String(deviation));
  t.is(model.toHubConfig()["init_std"], 0.5);
  model.dispose();
});

test.serial("checkpointing changes no bit of a gradient", async (t) => {
  const gradients = async (checkpointing: boolean) => {
    manualSeed(5);
    const { model } = await load(folderOf({ dropout: 0.2, activation_dropout: 0.1 }));
    await lora.inject(model, { r: 2, targetModules: "all-linear", bias: "all" });
    t.false(model.proj_out instanceof lora.LoRALayer);
    model.train().gradientCheckpointing = checkpointing;
    const loss = scope(() => {
      const made = model.loss(features(), LABELS);
      made.backward();
      return made.detach();
    });
    const grads = [...model.parameters()].filter((one) => one.requiresGrad).map((one) => one.grad as Tensor);
    const values = await Promise.all([loss, ...grads].map((one) => one.data()));
    model.dispose();
    return values.map((one) => [...one]);
  };
  t.deepEqual(await gradients(true), await gradients(false));
});

test("an adapter per row gives the logits of each adapter alone, and the sum of their losses", async (t) => {
  const { model } = await load(folderOf());
  for (const name of ["one", "two"]) {
    await lora.inject(model, { r: 2, targetModules: ["q_proj", "v_proj", "fc1"], name });
    for (const [key, one] of collectAdapterState(model, name))
      one.copy(tensor(hashed(`${name}.${key}`, one.shape), { shape: one.shape, device: "cpu" }));
  }
  const run = (adapterPerRow?: string[]) =>
    scope(() => {
      const { logits, loss } = model.forward(features(), { labels: LABELS, adapterPerRow });
      return { logits, loss: loss as Tensor };
    });
  const mixed = run(["two", "one"]);
  const values = (await mixed.logits.data()) as Float32Array;
  let sum = 0;
  for (const [row, name] of ["two", "one"].entries()) {
    lora.setAdapter(model, name);
    const alone = ((await run().logits.data()) as Float32Array).subarray(row * 9 * 97, (row + 1) * 9 * 97);
    t.true(error(values.subarray(row * 9 * 97, (row + 1) * 9 * 97), alone) < 1e-5);
    const own = Int32Array.from(LABELS, (label, i) => (Math.floor(i / 9) === row ? label : -100));
    sum += await scope(() => model.loss(features(), own)).item();
  }
  const loss = await mixed.loss.item();
  t.true(Math.abs(loss / sum - 1) < 1e-5, `the loss is ${loss}, not ${sum}`);
  model.dispose();
});

test("PEFT's table has no Whisper: target modules are named, or all except the head", async (t) => {
  const { model } = await load(folderOf());
  await refused(t, () => lora.inject(model, { targetModules: "peft" }), "ERR_NO_TARGETS", /PEFT's table/);
  const { adapted } = await lora.inject(model, { targetModules: ["q_proj", "v_proj"] });
  t.is(adapted.length, 2 * 2 + 2 * 2 * 3);
  t.true(adapted.includes("model.decoder.layers.2.encoder_attn.v_proj"));
  const folder = join(temporary(), "adapter");
  await lora.saveAdapter(model, folder);
  const config = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8")) as object;
  t.like(config, { task_type: null, target_modules: ["q_proj", "v_proj"] });
  model.dispose();
});

test("long speech is transcribed window by window, in the language of the first", async (t) => {
  const { model } = await load(folderOf());
  model.tokenizer = spaced;
  const speech = hashedSpeech("long", 2 * 16_000 + 5000);
  const whole = await model.transcribe(speech, { maxNewTokens: 6 });
  const first = await model.transcribe(speech.slice(0, 16_000), { maxNewTokens: 6 });
  const language = whole.language as string;
  t.is(first.language, language);
  const parts = [first.tokens];
  for (const start of [16_000, 32_000]) {
    const part = await model.transcribe(speech.slice(start, start + 16_000), { maxNewTokens: 6, language });
    parts.push(part.tokens);
  }
  t.deepEqual(whole.tokens, parts.flat());
  t.is(whole.text, parts.flat().join(" "));
  // A transcription does not depend on training mode or checkpointing, and does not change either.
  model.train().gradientCheckpointing = true;
  t.deepEqual(await model.transcribe(speech, { maxNewTokens: 6 }), whole);
  t.true(model.training);
  // The text has room for 24 tokens, including 4 initial ones.
  const long = await model.transcribe(speech.slice(0, 3000), { maxNewTokens: 1000, language: "fr" });
  t.true(long.tokens.length <= 20);
  model.dispose();
});

test("a transcription ends with the signal's reason", async (t) => {
  const { model } = await load(folderOf());
  model.tokenizer = spaced;
  const speech = hashedSpeech("long", 16_000);
  const gone = AbortSignal.abort(new Error("no more"));
  await t.throwsAsync(model.transcribe(speech, { signal: gone }), { message: "no more" });
  const controller = new AbortController();
  const running = model.transcribe(speech, { language: "fr", signal: controller.signal });
  setImmediate(() => controller.abort(new Error("enough")));
  await t.throwsAsync(running, { message: "enough" });
  model.dispose();
});

test("samples, features and labels of the wrong shape or values are refused", async (t) => {
  const { model } = await load(folderOf());
  model.tokenizer = spaced;
  const hear = (samples: unknown, options = {}) => model.transcribe(samples as Float32Array, options);
  const some = Float32Array.of(0.1, 0.2);
  await refused(t, () => hear([0.1]), "ERR_OPTION", /samples must be a Float32Array of samples at 16 kHz/);
  await refused(
    t,
    () => hear(Int16Array.of(3)),
    "ERR_OPTION",
    /got an Int16Array; divide 16-bit samples by 32768/,
  );
  await refused(t, () => hear(new Float64Array(3)), "ERR_OPTION", /got a Float64Array/);
  await refused(t, () => hear(new Float32Array()), "ERR_OPTION", /samples is empty/);
  await refused(t, () => hear(Float32Array.of(0, NaN)), "ERR_OPTION", /samples has NaN at sample 1/);
  await refused(t, () => hear(Float32Array.of(Infinity)), "ERR_OPTION", /samples has Infinity at sample 0/);
  await refused(t, () => hear(some, { timestamps: true }), "ERR_OPTION", /no option timestamps/);
  await refused(
    t,
    () => hear(some, { language: "klingon" }),
    "ERR_OPTION",
    /language must be one of fr, de, .*"klingon"/,
  );
  await refused(t, () => hear(some, { language: 3 }), "ERR_OPTION", /language must be a string, got 3/);
  await refused(
    t,
    () => hear(some, { task: "sing" }),
    "ERR_OPTION",
    /task must be one of transcribe, translate/,
  );
  await refused(t, () => hear(some, { maxNewTokens: 0 }), "ERR_OPTION", /maxNewTokens/);
  await refused(t, () => hear(some, { signal: 1 }), "ERR_OPTION", /signal must be an AbortSignal/);
  await refused(
    t,
    () => model.features([some, new Int16Array(2) as never]),
    "ERR_OPTION",
    /features: samples\[1\]/,
  );

  const bands = zeros([2, 80, 100], { device: "cpu" });
  const shape = /features are \[2, 80, 100\]; this model takes \[B, 12, 100\]/;
  await refused(t, () => model.forward(bands, { labels: LABELS }), "ERR_SHAPE_MISMATCH", shape);
  const short = zeros([2, 12, 99], { device: "cpu" });
  await refused(t, () => model.forward(short, { labels: LABELS }), "ERR_SHAPE_MISMATCH", /\[2, 12, 99\]/);
  const whole = full([2, 12, 100], 1, { dtype: "i32", device: "cpu" });
  await refused(t, () => model.forward(whole, { labels: LABELS }), "ERR_DTYPE", /features are f32, not i32/);
  await refused(t, () => model.forward(features()), "ERR_OPTION", /give labels or decoderInputIds/);
  await refused(
    t,
    () => model.forward(features(), { attentionMask: bands } as object),
    "ERR_OPTION",
    /no option/,
  );
  const uneven = Int32Array.of(1, 2, 3);
  await refused(t, () => model.loss(features(), uneven), "ERR_SHAPE_MISMATCH", /labels are \[3\].*\[2, T\]/);
  const flat = tensor(LABELS, { device: "cpu" });
  await refused(t, () => model.loss(features(), flat), "ERR_SHAPE_MISMATCH", /labels are \[18\]/);
  await refused(
    t,
    () => model.loss(features(), Int32Array.of(1, 2, 3, 97)),
    "ERR_INDEX",
    /label 97 at \[1, 1\]/,
  );
  await refused(t, () => model.loss(features(), new Int32Array(50)), "ERR_INDEX", /25 tokens.*24/);
  const ids = tensor(Int32Array.of(1, 2), { shape: [1, 2], device: "cpu" });
  const one = { decoderInputIds: ids };
  await refused(t, () => model.forward(features(), one), "ERR_SHAPE_MISMATCH", /\[1, 2\]; they are \[2, 2\]/);

  model.tokenizer = undefined;
  await refused(t, () => hear(some), "ERR_FILE_NOT_FOUND", /has no tokenizer\.json/);
  model.dispose();
});

test("the folder's generation configuration is required and respected", async (t) => {
  const some = Float32Array.of(0.1, 0.2);
  const heard = async (files: Record<string, object>, options = {}) => {
    const { model } = await load(folderOf({}, files));
    model.tokenizer = spaced;
    try {
      return await model.transcribe(some, { maxNewTokens: 1, ...options });
    } finally {
      model.dispose();
    }
  };
  const of = (more: object, from = generation.multilingual) => ({
    "generation_config.json": { ...from, ...more },
  });
  await refused(
    t,
    () => heard({}),
    "ERR_UNSUPPORTED_MODEL",
    /no_timestamps_token_id, a start token of its texts/,
  );
  await refused(t, () => heard(of({ no_timestamps_token_id: null })), "ERR_UNSUPPORTED_MODEL", /start token/);
  const english = { "generation_config.json": generation.english };
  await refused(
    t,
    () => heard(english, { language: "en" }),
    "ERR_OPTION",
    /English-only; leave language out/,
  );
  await refused(t, () => heard(english, { task: "translate" }), "ERR_OPTION", /English-only; leave task out/);
  await refused(t, () => heard(of({ lang_to_id: null }), { language: "en" }), "ERR_OPTION", /lang_to_id/);
  const noTasks = of({ task_to_id: { transcribe: 94 } });
  await refused(
    t,
    () => heard(noTasks, { task: "translate" }),
    "ERR_OPTION",
    /no token of the task translate/,
  );
  t.is((await heard(of({ language: "<|de|>" }))).language, "de");
  t.is(
    (
      await heard(
        of({
          forced_decoder_ids: [
            [1, 64],
            [2, 94],
          ],
        }),
      )
    ).language,
    "it",
  );

  const wrong = (more: object, message: RegExp) =>
    refused(t, () => heard(of(more)), "ERR_FILE_FORMAT", message);
  await wrong({ suppress_tokens: [3, 97] }, /suppress_tokens contains 97, but the model's tokens end at 96/);
  await wrong({ lang_to_id: { "<|fr|>": 500 } }, /contains 500/);
  await wrong({ lang_to_id: [1] }, /lang_to_id must be an object/);
  await wrong(
    { forced_decoder_ids: [[2, 94]] },
    /forced_decoder_ids must be a list of consecutive positions from 1/,
  );
  await wrong({ task: "sing" }, /task must be transcribe or translate/);
  await wrong({ decoder_start_token_id: 97 }, /decoder_start_token_id is 97, and vocab_size 97/);
});

test("the folder's feature configuration must match the model", async (t) => {
  const told = (more: object, name = "preprocessor_config.json") =>
    load(folderOf({}, { [name]: { ...PREPROCESSOR, ...more } }));
  const wrong = (more: object, message: RegExp, code: ErrorCode = "ERR_FILE_FORMAT") =>
    refused(t, () => told(more), code, message);
  await wrong({ feature_size: 80 }, /feature_size must be 12, the num_mel_bins of config\.json, got 80/);
  await wrong({ sampling_rate: 8000 }, /sampling_rate must be 16000/);
  await wrong({ n_fft: 512 }, /n_fft must be 400/);
  await wrong({ hop_length: 200 }, /hop_length must be 160/);
  await wrong({ chunk_length: 30 }, /chunk_length must be 1/);
  await wrong({ chunk_length: "1" }, /chunk_length must be a number above 0/);
  await wrong({ feature_extractor_type: "ViTImageProcessor" }, /must be WhisperFeatureExtractor/);
  await wrong({ dither: 0.1 }, /dither is 0\.1/, "ERR_UNSUPPORTED_MODEL");
  await wrong({ do_normalize: true }, /do_normalize/, "ERR_UNSUPPORTED_MODEL");
  (await told({})).model.dispose();
  const nested = { "processor_config.json": { feature_extractor: { ...PREPROCESSOR, n_fft: 512 } } };
  await refused(
    t,
    () => load(folderOf({}, nested)),
    "ERR_FILE_FORMAT",
    /feature_extractor\.n_fft must be 400/,
  );
  const folder = folderOf();
  writeFileSync(join(folder, "preprocessor_config.json"), "{");
  await refused(t, () => load(folder), "ERR_FILE_FORMAT", /preprocessor_config\.json: not JSON/);
});

test("a configuration is read strictly, and one that is written reads back unchanged", async (t) => {
  const config = JSON.parse(readFileSync(join(golden, "config.json"), "utf8")) as Record<string, unknown>;
  const read = readWhisperConfig({
    ...config,
    suppress_tokens: [3],
    forced_decoder_ids: [
      [1, null],
      [2, 94],
    ],
  });
  t.deepEqual(readWhisperConfig(writeWhisperConfig(read)), read);
  await refused(
    t,
    () => load(folderOf({ decoder_attention_heads: 5 })),
    "ERR_FILE_FORMAT",
    /must divide d_model/,
  );
  await refused(t, () => load(folderOf({ d_model: 3 })), "ERR_FILE_FORMAT", /d_model must be an even number/);
  await refused(t, () => load(folderOf({ num_mel_bins: 2000 })), "ERR_FILE_FORMAT", /num_mel_bins/);
  await refused(t, () => load(folderOf({ num_mel_bins: 13 })), "ERR_SHAPE_MISMATCH", /conv1\.weight/);
  await refused(
    t,
    () => loadModel(folderOf(), { task: "causal-lm" }),
    "ERR_UNSUPPORTED_MODEL",
    /"causal-lm" is not supported for whisper; supported are speech-to-text/,
  );
  t.throws(() => WhisperForConditionalGeneration.fromConfig({ d_modle: 3 } as object), {
    code: "ERR_OPTION",
    message: /unknown field d_modle/,
  });
});

test("languages by code, token and name", (t) => {
  for (const name of ["de", "<|de|>", "German", " german "]) t.is(resolveLanguage(name), "de");
  t.is(resolveLanguage("haitian creole"), "ht");
  t.is(resolveLanguage("Mandarin"), "zh");
  t.is(resolveLanguage("klingon"), "klingon");
});
