/**
 * Adapters saved by lowrank, as loaded by transformers and PEFT (README.md): `tsx adapters-to-peft.ts PYTHON
 * [VARIANT]`, where PYTHON is the interpreter of an environment with requirements.txt. Prints the relative
 * difference of the logits, and fails if it is above 1e-5 or if a key differs from PEFT's.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import {
  loadModel,
  lora,
  noGrad,
  saveModel,
  scope,
  SpeechToText,
  tensor,
  type PretrainedModel,
  type Tensor,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { goldenModel, hashed, temporary } from "../hashed.js";
import { hashedFeatures } from "./speech.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

const [python] = process.argv.slice(2);
if (python === undefined) throw new Error("usage: tsx adapters-to-peft.ts PYTHON [VARIANT]");

const cases: Record<string, lora.InjectOptions> = {
  "q_proj and v_proj": { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"] },
  "all-linear": { r: 3, loraAlpha: 5, targetModules: "all-linear" },
  "bias all": { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"], bias: "all" },
  "bias lora_only": { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"], bias: "lora_only" },
  "bias all, modulesToSave o_proj": {
    r: 2,
    targetModules: ["q_proj", "v_proj"],
    bias: "all",
    modulesToSave: ["o_proj"],
  },
  "modulesToSave lm_head": { r: 2, loraAlpha: 6, modulesToSave: ["lm_head"] },
  "modulesToSave norm and embed_tokens": { r: 2, loraAlpha: 6, modulesToSave: ["norm", "embed_tokens"] },
  useRslora: { r: 4, loraAlpha: 6, targetModules: ["q_proj", "down_proj"], useRslora: true },
  embed_tokens: { r: 2, loraAlpha: 5, targetModules: ["embed_tokens", "q_proj"] },
  "embed_tokens by its path": { r: 2, loraAlpha: 5, targetModules: ["model.embed_tokens", "q_proj"] },
  lm_head: { r: 2, loraAlpha: 5, targetModules: ".*(lm_head|k_proj)" },
  useDora: { r: 2, loraAlpha: 6, targetModules: ["q_proj", "embed_tokens"], useDora: true },
  loraBias: { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"], loraBias: true },
  "rankPattern and alphaPattern": {
    r: 2,
    targetModules: ["q_proj", "v_proj"],
    rankPattern: { "layers.1.self_attn.q_proj": 4, v_proj: 3 },
    alphaPattern: { ".*q_proj": 5 },
  },
  "layersToTransform 1": { r: 2, targetModules: ["q_proj"], layersToTransform: [1], layersPattern: "layers" },
  "pissa as a plain adapter": { r: 4, loraAlpha: 6, targetModules: ["q_proj"], initLoraWeights: "pissa" },
  "olora, useRslora": {
    r: 4,
    loraAlpha: 6,
    targetModules: ["q_proj", "down_proj"],
    initLoraWeights: "olora",
    useRslora: true,
  },
  trainableTokenIndices: {
    r: 2,
    targetModules: ["q_proj"],
    trainableTokenIndices: { embed_tokens: [3, 96], lm_head: [5] },
  },
};

/** Other families, each on its golden's batch. */
const families: Record<string, Record<string, lora.InjectOptions>> = {
  gpt2: {
    c_attn: { r: 3, loraAlpha: 6 },
    "all-linear": { r: 2, loraAlpha: 6, targetModules: "all-linear" },
    "wte and c_fc": { r: 2, loraAlpha: 6, targetModules: ["wte", "c_fc"] },
  },
  bert: {
    "query and value": { r: 2, loraAlpha: 6, taskType: "SEQ_CLS" },
    "all-linear": { r: 2, loraAlpha: 6, targetModules: "all-linear", taskType: "SEQ_CLS" },
  },
  roberta: { "all-linear": { r: 2, loraAlpha: 6, targetModules: "all-linear", taskType: "SEQ_CLS" } },
  distilbert: {
    "q_lin and v_lin": { r: 2, loraAlpha: 6, targetModules: ["q_lin", "v_lin"], taskType: "SEQ_CLS" },
  },
  vit: {
    "q_proj and the patches' convolution, modulesToSave classifier": {
      r: 2,
      loraAlpha: 6,
      targetModules: ["q_proj", "projection"],
      modulesToSave: ["classifier"],
    },
  },
};

const work = temporary();

/** Inputs of a model, by transformers' names. */
type Inputs = Partial<
  Record<
    | "input_ids"
    | "attention_mask"
    | "token_type_ids"
    | "pixel_values"
    | "input_features"
    | "decoder_input_ids",
    Golden
  >
>;

function nested(data: ArrayLike<number>, shape: readonly number[]): unknown {
  if (shape.length === 1) return Array.from(data);
  const [rows, ...rest] = shape as [number, ...number[]];
  const size = data.length / rows;
  return Array.from({ length: rows }, (_, i) =>
    nested(Array.prototype.slice.call(data, i * size, (i + 1) * size), rest),
  );
}

async function logits(model: PretrainedModel, inputs: Inputs): Promise<Float32Array> {
  const given = (one: Golden | undefined): Tensor | undefined =>
    one && tensor(one.data, { shape: one.shape, device: "cpu" });
  const out = scope(() => {
    if (model instanceof SpeechToText) {
      const decoderInputIds = given(inputs.decoder_input_ids);
      return model.forward(given(inputs.input_features) as Tensor, { decoderInputIds }).logits;
    }
    const input = given(inputs.input_ids ?? inputs.pixel_values) as Tensor;
    const options = {
      attentionMask: given(inputs.attention_mask),
      tokenTypeIds: given(inputs.token_type_ids),
    };
    return model.forward(input, options).logits;
  });
  return (await out?.data()) as Float32Array;
}

/** Returns the difference between transformers' logits and `ours`, with an adapter's folder or `-`. */
function apart(ours: Float32Array, inputs: Inputs, model: string, adapter: string): number {
  const [given, out] = [join(work, "inputs.json"), join(work, "out.json")];
  const values = Object.entries(inputs).map(([name, one]) => [name, nested(one.data, one.shape)]);
  writeFileSync(given, JSON.stringify(Object.fromEntries(values)));
  const script = fileURLToPath(new URL("adapter_logits.py", import.meta.url));
  const ran = spawnSync(python as string, ["-W", "always", script, model, adapter, given, out], {
    encoding: "utf8",
  });
  if (ran.status !== 0) throw new Error(ran.stderr);
  const { logits } = JSON.parse(readFileSync(out, "utf8")) as { logits: number[][] | number[][][] };
  // Without the progress bar.
  const said = ran.stderr.split("\n").filter((line) => line !== "" && !line.includes("Loading weights"));
  if (adapter === "-" && said.length > 0)
    throw new Error(`${model} does not load without a word: ${said.join("\n")}`);
  return error(ours, (logits as number[][][]).flat(2));
}

let worst = 0;
function report(name: string, off: number): void {
  worst = Math.max(worst, off);
  process.stdout.write(`${off.toExponential(1)}  ${name}\n`);
}

/** Checks an adapter of each case on the model in `saved`, and the model with each merged. */
async function checkCases(variant: string, saved: string, inputs: Inputs, own: typeof cases): Promise<void> {
  for (const [name, options] of Object.entries(own)) {
    const model: PretrainedModel = await loadModel(saved, { device: "cpu" });
    const base = await logits(model, inputs);
    await lora.inject(model, options);
    noGrad(() =>
      scope(() => {
        for (const [key, one] of collectAdapterState(model, "default")) {
          if (!key.endsWith(".base_layer.weight"))
            one.copy(tensor(hashed(key, one.shape), { shape: one.shape, device: "cpu" }));
        }
      }),
    );
    const ours = await logits(model, inputs);
    if (error(ours, base) < 1e-3) throw new Error(`${name}: the adapter does nothing`);
    const folder = join(work, `${variant} ${name}`);
    await lora.saveAdapter(model, folder);
    report(`${variant}: ${name}`, apart(ours, inputs, saved, folder));
    await lora.mergeAndUnload(model);
    await saveModel(model, `${folder} merged`);
    report(`${variant}: ${name}, merged by lowrank`, apart(ours, inputs, `${folder} merged`, "-"));
    model.dispose();
  }
}

/** Saves the model of a golden; returns its folder. */
async function saveGolden(variant: string, golden: string, inputs: Inputs): Promise<string> {
  const plain: PretrainedModel = await loadModel(goldenModel(join(goldens, golden)), { device: "cpu" });
  const saved = join(work, variant);
  await saveModel(plain, saved);
  report(`${variant}: saveModel`, apart(await logits(plain, inputs), inputs, saved, "-"));
  await saveModel(plain, `${saved}-sharded`, { maxShardBytes: 50_000 });
  report(
    `${variant}: saveModel in shards`,
    apart(await logits(plain, inputs), inputs, `${saved}-sharded`, "-"),
  );
  plain.dispose();
  return saved;
}

const [only] = process.argv.slice(3);
const wanted = (variant: string): boolean => only === undefined || only === variant;
for (const variant of ["untied-llama3", "tied"].filter(wanted)) {
  const { ids } = await onHost(join(goldens, "peft", "rslora", "golden.safetensors"));
  const inputs = { input_ids: ids as Golden };
  const saved = await saveGolden(variant, `llama-${variant}`, inputs);
  const some = variant === "tied" ? /embed_tokens$|all-linear/ : /./;
  const own = Object.fromEntries(Object.entries(cases).filter(([name]) => some.test(name)));
  await checkCases(variant, saved, inputs, own);
}
for (const [variant, own] of Object.entries(families).filter(([name]) => wanted(name))) {
  const golden = join("families", variant);
  const host = await onHost(join(goldens, golden, "golden.safetensors"));
  const names = ["input_ids", "attention_mask", "token_type_ids", "pixel_values"].filter(
    (name) => name in host,
  );
  const inputs = Object.fromEntries(names.map((name) => [name, host[name]])) as Inputs;
  await checkCases(variant, await saveGolden(variant, golden, inputs), inputs, own);
}
if (wanted("whisper")) {
  const features = { data: hashedFeatures("base", 2 * 12 * 100), shape: [2, 12, 100] };
  const ids = { data: Int32Array.of(90, 61, 94, 95, 3, 90, 62, 93, 95, 45), shape: [2, 5] };
  const inputs = { input_features: features, decoder_input_ids: ids };
  const own = {
    "q_proj and v_proj": { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"] },
    "all-linear": { r: 2, loraAlpha: 6, targetModules: "all-linear" },
    "fc1 and embed_tokens": { r: 2, loraAlpha: 6, targetModules: ["fc1", "embed_tokens"] },
  };
  await checkCases("whisper", await saveGolden("whisper", "whisper", inputs), inputs, own);
}
if (!(worst < 1e-5)) throw new Error(`the furthest is off by ${worst}`);
