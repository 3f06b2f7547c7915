/** Models from a configuration alone: initialised as in transformers, trained from scratch, saved and loaded. */
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";

import test from "ava";
import {
  BertForSequenceClassification,
  BertModel,
  DistilBertForSequenceClassification,
  DistilBertModel,
  GPT2LMHeadModel,
  LlamaForCausalLM,
  loadModel,
  manualSeed,
  RobertaForSequenceClassification,
  RobertaModel,
  saveModel,
  scope,
  tensor,
  ViTForImageClassification,
  type PretrainedModel,
  type Tensor,
} from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { temporary } from "../hashed.js";
import { error } from "../parity/goldens.js";
import { stepLosses } from "./trained.js";

const LLAMA = {
  vocab_size: 53,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
};
const GPT2 = {
  vocab_size: 53,
  n_embd: 32,
  n_layer: 2,
  n_head: 2,
  n_positions: 32,
  bos_token_id: 0,
  eos_token_id: 0,
};
const BERT = {
  vocab_size: 53,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 34,
  num_labels: 3,
};
const DISTILBERT = {
  vocab_size: 53,
  dim: 32,
  hidden_dim: 48,
  n_layers: 2,
  n_heads: 2,
  max_position_embeddings: 34,
  num_labels: 3,
};
const VIT = { ...BERT, image_size: 8, patch_size: 4 };
const { vocab_size: _, max_position_embeddings: __, ...IMAGES } = VIT;

type Make = (device: TestDevice, dtype?: "bf16") => PretrainedModel;
const where = (device: TestDevice, dtype?: "bf16") => ({ device, dtype });

const classes: Record<string, Make> = {
  LlamaForCausalLM: (...to) => LlamaForCausalLM.fromConfig({ ...LLAMA, pad_token_id: 2 }, where(...to)),
  "LlamaForCausalLM, tied": (...to) =>
    LlamaForCausalLM.fromConfig(
      { ...LLAMA, tie_word_embeddings: true, rope_theta: 5e5, head_dim: 16 },
      where(...to),
    ),
  "LlamaForCausalLM as Mistral": (...to) =>
    LlamaForCausalLM.fromConfig({ ...LLAMA, model_type: "mistral", sliding_window: 4 }, where(...to)),
  GPT2LMHeadModel: (...to) => GPT2LMHeadModel.fromConfig(GPT2, where(...to)),
  BertModel: (...to) => BertModel.fromConfig(BERT, where(...to)),
  RobertaModel: (...to) => RobertaModel.fromConfig(BERT, where(...to)),
  BertForSequenceClassification: (...to) => BertForSequenceClassification.fromConfig(BERT, where(...to)),
  RobertaForSequenceClassification: (...to) =>
    RobertaForSequenceClassification.fromConfig(
      { ...BERT, id2label: { 0: "sea", 1: "land", 2: "air" }, num_labels: null },
      where(...to),
    ),
  DistilBertModel: (...to) => DistilBertModel.fromConfig(DISTILBERT, where(...to)),
  DistilBertForSequenceClassification: (...to) =>
    DistilBertForSequenceClassification.fromConfig(DISTILBERT, where(...to)),
  ViTForImageClassification: (...to) => ViTForImageClassification.fromConfig(IMAGES, where(...to)),
};

/** Returns the loss of a batch that suits the model. */
function lossOf(model: PretrainedModel): Tensor {
  const { device } = model;
  const ids = Int32Array.from({ length: 2 * 6 }, (_, i) => 3 + ((i * 7) % 50));
  const text = tensor(ids, { shape: [2, 6], device });
  if (model instanceof LlamaForCausalLM || model instanceof GPT2LMHeadModel) return model.loss(text, ids);
  if (model instanceof BertModel) {
    const { hidden } = model.forward(text);
    return hidden
      .mul(hidden)
      .mean()
      .add((model.pooler as NonNullable<typeof model.pooler>).forward(hidden).sum());
  }
  if (model instanceof DistilBertModel) {
    // The last norm makes all sums of squares equal.
    const { hidden } = model.forward(text);
    return hidden.slice(2, 0, 1).sum();
  }
  const classes = model as ViTForImageClassification | BertForSequenceClassification;
  return classes.loss(inputOf(model), Int32Array.of(0, 2));
}

function inputOf(model: PretrainedModel): Tensor {
  const { device } = model;
  if (model instanceof ViTForImageClassification) {
    const pixels = Float32Array.from({ length: 2 * 3 * 64 }, (_, i) => Math.sin(i));
    return tensor(pixels, { shape: [2, 3, 8, 8], device });
  }
  return tensor(
    Int32Array.from({ length: 12 }, (_, i) => 3 + i),
    { shape: [2, 6], device },
  );
}

async function values(model: PretrainedModel): Promise<ArrayLike<number>> {
  const out = scope(() => model.eval().forward(inputOf(model)));
  return (out.logits ?? out.hidden).data();
}

async function hostState(model: PretrainedModel): Promise<Map<string, ArrayLike<number>>> {
  const state = new Map<string, ArrayLike<number>>();
  for (const [name, one] of Object.entries(model.stateDict())) state.set(name, await one.data());
  return state;
}

for (const device of testDevices()) {
  for (const [name, make] of Object.entries(classes)) {
    test(`${name} on ${device} is trained from scratch, and is bit-identical after saving and loading`, async (t) => {
      manualSeed(4);
      const model = make(device);
      t.true(model.training);
      t.is(model.device, device === "gpu" ? "gpu" : "cpu");
      t.true([...model.parameters()].every((one) => one.requiresGrad));
      const losses = await stepLosses(model, () => lossOf(model.eval()), { steps: 4, lr: 3e-3 });
      t.true((losses[3] as number) < (losses[0] as number), losses.join(", "));
      const folder = join(temporary(), "model");
      await saveModel(model, folder);
      const bare = model instanceof BertModel || model instanceof DistilBertModel;
      const task = bare ? "feature-extraction" : undefined;
      const loaded: PretrainedModel = await loadModel(folder, { device, ...(task && { task }) });
      t.is(loaded.constructor, model.constructor);
      t.true(isDeepStrictEqual(await hostState(loaded), await hostState(model)));
      t.deepEqual(await values(loaded), await values(model));
      // Another model loads its state.
      const other = make(device);
      t.deepEqual(other.loadStateDict(model.stateDict()), { missing: [], unexpected: [] });
      t.deepEqual(await values(other), await values(model));
      for (const one of [model, loaded, other]) one.dispose();
    });
  }
}

for (const [name, make] of Object.entries(classes)) {
  test(`${name}: a seed determines the weights, which are distributed as in transformers`, async (t) => {
    manualSeed(9);
    const first = make("cpu");
    manualSeed(9);
    const second = make("cpu");
    const state = await hostState(first);
    t.true(isDeepStrictEqual(await hostState(second), state));
    for (const [path, data] of state) {
      const all = Array.from(data);
      const norm = /(norm|ln_\w|LayerNorm|layernorm_\w+)\.weight$/.test(path);
      if (path.endsWith(".bias"))
        t.true(
          all.every((one) => one === 0),
          path,
        );
      else if (norm)
        t.true(
          all.every((one) => one === 1),
          path,
        );
      else {
        const drawn = all.filter((one) => one !== 0);
        const deviation = Math.sqrt(drawn.reduce((sum, one) => sum + one * one, 0) / drawn.length);
        const expected = path.endsWith("c_proj.weight") ? 0.02 / Math.sqrt(4) : 0.02;
        // Six standard deviations of the estimate, whose relative error is 1/√(2n).
        t.true(Math.abs(deviation / expected - 1) < 6 / Math.sqrt(2 * drawn.length), `${path}: ${deviation}`);
      }
    }
    const padding: Record<string, [path: string, row: number]> = {
      LlamaForCausalLM: ["model.embed_tokens.weight", 2],
      BertModel: ["embeddings.word_embeddings.weight", 0],
      DistilBertModel: ["embeddings.word_embeddings.weight", 0],
      RobertaModel: ["embeddings.position_embeddings.weight", 1],
    };
    const [path, row] = padding[name] ?? [];
    if (path !== undefined && row !== undefined) {
      const table = state.get(path) as Float32Array;
      const zeros = Array.from({ length: table.length / 32 }, (_, r) =>
        table.subarray(r * 32, (r + 1) * 32).every((one) => one === 0),
      );
      t.deepEqual([zeros.indexOf(true), zeros.lastIndexOf(true)], [row, row], path);
    }
  });

  test(`${name} in bf16 is frozen, and takes half the memory`, (t) => {
    const model = make("cpu", "bf16");
    for (const [path, one] of model.namedParameters()) {
      t.is(one.dtype, path.endsWith(".bias") ? "f32" : "bf16", path);
      t.false(one.requiresGrad, path);
    }
    model.dispose();
  });
}

test("initializer_range is the standard deviation, and is saved", async (t) => {
  const model = GPT2LMHeadModel.fromConfig({ ...GPT2, initializer_range: 0 });
  t.true((await model.transformer.wte.weight.data()).every((one) => one === 0));
  t.is(model.toHubConfig()["initializer_range"], 0);
  model.dispose();
});

test("DistilBERT's positions are sines and cosines if the configuration says so", async (t) => {
  const model = DistilBertModel.fromConfig({ ...DISTILBERT, sinusoidal_pos_embds: true }, { device: "cpu" });
  const table = await model.embeddings.position_embeddings.weight.data();
  for (const [position, c] of [
    [0, 0],
    [0, 1],
    [3, 4],
    [33, 31],
  ] as const) {
    const angle = position / 10_000 ** ((2 * Math.floor(c / 2)) / 32);
    t.is(table[position * 32 + c], Math.fround(c % 2 === 0 ? Math.sin(angle) : Math.cos(angle)));
  }
  model.dispose();
});

test("a configuration is read strictly", (t) => {
  type Case = [config: unknown, code: string, message: RegExp, options?: object];
  const cases: Case[] = [
    [
      { ...LLAMA, hidden_size: undefined },
      "ERR_OPTION",
      /^LlamaForCausalLM.fromConfig: hidden_size is missing/,
    ],
    [{ ...LLAMA, hiden_size: 3 }, "ERR_OPTION", /unknown field hiden_size; known fields are .*hidden_size/],
    [{ ...LLAMA, vocab_size: "53" }, "ERR_OPTION", /vocab_size must be a number above 0, got "53"/],
    [{ ...LLAMA, vocab_size: 1e9 }, "ERR_OPTION", /vocab_size must be an integer from 1 to/],
    [{ ...LLAMA, num_attention_heads: 3 }, "ERR_OPTION", /num_key_value_heads must divide|must divide/],
    [{ ...LLAMA, initializer_range: -1 }, "ERR_OPTION", /initializer_range must be a number above 0/],
    [{ ...LLAMA, model_type: "gpt2" }, "ERR_OPTION", /model_type is "llama" or .*"qwen3", not "gpt2"/],
    [{ ...LLAMA, hidden_act: "relu" }, "ERR_UNSUPPORTED_MODEL", /hidden_act "relu"/],
    [{ ...LLAMA, quantization_config: {} }, "ERR_UNSUPPORTED_MODEL", /quantised/],
    [{ ...LLAMA, rope_scaling: { rope_type: "linear" } }, "ERR_OPTION", /rope_scaling.factor is missing/],
    [
      { ...LLAMA, hidden_size: 2 ** 18, intermediate_size: 2 ** 20, num_hidden_layers: 4096 },
      "ERR_OPTION",
      /weights, more than any model has/,
    ],
    [null, "ERR_OPTION", /the first argument must be an object of configuration fields/],
    ["config.json", "ERR_OPTION", /the first argument must be an object of configuration fields/],
    [LLAMA, "ERR_OPTION", /dtype must be one of f32, f16, bf16, got "i32"/, { dtype: "i32" }],
    [LLAMA, "ERR_OPTION", /there is no option devise/, { devise: "cpu" }],
    [LLAMA, "ERR_OPTION", /device/, { device: "tpu" }],
    [{ ...LLAMA, vocab_size: 10n }, "ERR_OPTION", /vocab_size must be a number above 0, got 10n/],
    [{ ...LLAMA, model_type: 10n }, "ERR_OPTION", /not 10n/],
  ];
  for (const [config, code, message, options] of cases)
    t.throws(() => LlamaForCausalLM.fromConfig(config as typeof LLAMA, options), { code, message });
  t.throws(() => new (LlamaForCausalLM as unknown as new () => unknown)(), {
    code: "ERR_OPTION",
    message: /is made by LlamaForCausalLM.fromConfig, or by loadModel/,
  });
  // A complete config.json of transformers is accepted.
  const whole = {
    ...LLAMA,
    _name_or_path: "x",
    architectures: ["LlamaForCausalLM"],
    attention_dropout: 0,
    pretraining_tp: 1,
    rope_scaling: null,
    torch_dtype: "bfloat16",
    transformers_version: "4.40.0",
    use_cache: true,
  };
  t.notThrows(() => LlamaForCausalLM.fromConfig(whole).dispose());
});

test("a model that moves to another device keeps its shared weights shared", async (t) => {
  const target = testDevices().at(-1) as TestDevice;
  for (const make of [
    () => GPT2LMHeadModel.fromConfig(GPT2, { device: "cpu" }),
    () => LlamaForCausalLM.fromConfig({ ...LLAMA, tie_word_embeddings: true }, { device: "cpu" }),
  ]) {
    manualSeed(3);
    const model = make();
    const [before, count] = [await values(model), [...model.parameters()].length];
    model.to(target);
    t.is(model.lm_head.weight, model.getInputEmbedding().weight);
    t.is([...model.parameters()].length, count);
    t.true([...model.parameters()].every((one) => one.requiresGrad && !one.disposed));
    t.true(error(await values(model), before) < 1e-5);
    model.dispose();
  }
});

test("a model with random weights generates", async (t) => {
  manualSeed(1);
  const model = LlamaForCausalLM.fromConfig(LLAMA, { device: "cpu" }).eval();
  const tokens: number[] = [];
  for await (const { token } of model.generate(Int32Array.of(1, 2, 3), { maxNewTokens: 4 }))
    tokens.push(token);
  t.true(tokens.length > 0 && tokens.every((token) => token < LLAMA.vocab_size));
  model.dispose();
});
