/** Adapters as GGUF: llama.cpp's use of the factors gives lowrank's ΔW, and unsupported adapters are refused. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import test from "ava";

import {
  LlamaForCausalLM,
  loadModel,
  lora,
  nn,
  noGrad,
  scope,
  tensor,
  type CausalLM,
} from "../../src/index.js";
import { runCli } from "../../src/cli/program.js";
import { GGUF_REFUSALS } from "../../src/gguf/refusals.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { floats, readGguf, type ReadTensor } from "../gguf/file.js";
import { goldenModel, hashed, temporary } from "../hashed.js";
import { goldens } from "../parity/goldens.js";

const llama = goldenModel(join(goldens, "llama-untied-llama3"));
const tied = goldenModel(join(goldens, "llama-tied"));

/** Returns a model with a random adapter, and the folder into which the adapter was saved. */
async function adapted(
  folder: string,
  options: lora.InjectOptions,
): Promise<{ model: CausalLM; dir: string }> {
  const model = await loadModel<"causal-lm">(folder, { device: "cpu" });
  await lora.inject(model, options);
  noGrad(() =>
    scope(() => {
      for (const [key, one] of collectAdapterState(model, "default"))
        if (one.dtype === "f32" && !key.endsWith(".base_layer.weight"))
          one.copy(tensor(hashed(key, one.shape), { shape: one.shape, device: "cpu" }));
    }),
  );
  const dir = temporary();
  await lora.saveAdapter(model, dir);
  return { model, dir };
}

/** Returns [rows, columns] of a tensor in the file, and its values. */
function matrix(one: ReadTensor | undefined): {
  rows: number;
  columns: number;
  at(i: number, j: number): number;
} {
  if (one === undefined) throw new Error("no such tensor");
  const [columns, rows] = one.shape as [number, number];
  const data = floats(one);
  return { rows, columns, at: (i, j) => data[i * columns + j] as number };
}

/** Returns alpha / rank · B·A, scaled as in llama.cpp's llama-adapter.h. */
function deltaOf(file: ReturnType<typeof readGguf>, name: string): (i: number, j: number) => number {
  const [a, b] = ["a", "b"].map((half) => matrix(file.tensors[`${name}.lora_${half}`])) as [
    ReturnType<typeof matrix>,
    ReturnType<typeof matrix>,
  ];
  const alpha = file.keys["adapter.lora.alpha"] as number;
  const scale = alpha === 0 ? 1 : alpha / b.columns;
  return (i, j) => {
    let sum = 0;
    for (let k = 0; k < b.columns; k++) sum += b.at(i, k) * a.at(k, j);
    return scale * sum;
  };
}

const scalings: Record<string, lora.InjectOptions> = {
  "alpha over rank": { r: 3, loraAlpha: 5, targetModules: ["q_proj", "v_proj"] },
  rslora: { r: 4, loraAlpha: 6, targetModules: ["q_proj", "v_proj"], useRslora: true },
  "patterns of rank and alpha": {
    r: 2,
    loraAlpha: 4,
    targetModules: ["q_proj", "v_proj"],
    rankPattern: { "layers.1.*": 5 },
    alphaPattern: { v_proj: 9 },
  },
  pissa: { r: 4, loraAlpha: 6, targetModules: ["q_proj", "v_proj"], initLoraWeights: "pissa" },
};

for (const [name, options] of Object.entries(scalings)) {
  test(`${name}: alpha over the rank of each B gives the layer's ΔW, with its rows in llama.cpp's order`, async (t) => {
    const { model, dir } = await adapted(llama, options);
    const path = join(temporary(), "below", "adapter.gguf");
    await lora.convertAdapter(dir, path, { format: "gguf" });
    const file = readGguf(path);
    t.is(Object.keys(file.tensors).length, 2 * 2 * 2);
    for (const [layer, from] of [
      ["self_attn.q_proj", "attn_q"],
      ["self_attn.v_proj", "attn_v"],
    ] as const) {
      const module = (model as LlamaForCausalLM).model.layers[1]?.self_attn[layer.slice(10) as "q_proj"];
      if (!(module instanceof lora.LoRALayer)) throw new Error(`${layer} is not adapted`);
      const delta = noGrad(() => module.deltaWeight());
      const [rows, columns] = delta.shape as [number, number];
      const ours = await delta.data();
      const theirs = deltaOf(file, `blk.1.${from}.weight`);
      let apart = 0;
      for (let i = 0; i < rows; i++) {
        // Six heads of 16: the file's row 2k of a head is row k, row 2k + 1 is row 8 + k.
        const [head, k] = [Math.trunc(i / 16), i % 16];
        const row = from === "attn_v" ? i : head * 16 + (k % 2) * 8 + Math.trunc(k / 2);
        for (let j = 0; j < columns; j += 7)
          apart = Math.max(apart, Math.abs(theirs(i, j) - (ours[row * columns + j] as number)));
      }
      const largest = Math.max(...ours.map(Math.abs));
      t.true(largest > 0 && apart < 1e-5 * largest, `${layer}: ${apart} of ${largest}`);
      delta.dispose();
    }
    model.dispose();
  });
}

test("llama.cpp reads alpha 0 as scale 1, and an adapter with alpha 0 still has no effect", async (t) => {
  const { model, dir } = await adapted(llama, { r: 2, loraAlpha: 1, targetModules: ["v_proj"] });
  const config = join(dir, "adapter_config.json");
  writeFileSync(config, readFileSync(config, "utf8").replace(/"lora_alpha": 1\b/, '"lora_alpha": 0'));
  const path = join(temporary(), "adapter.gguf");
  await lora.convertAdapter(dir, path, { format: "gguf" });
  const file = readGguf(path);
  t.is(file.keys["adapter.lora.alpha"], 0);
  t.is(deltaOf(file, "blk.0.attn_v.weight")(3, 5), 0);
  model.dispose();
});

test("an embedding's A is looked up by token, and a head's is not", async (t) => {
  const { model, dir } = await adapted(llama, {
    r: 2,
    loraAlpha: 4,
    targetModules: ["embed_tokens", "lm_head"],
  });
  const path = join(temporary(), "adapter.gguf");
  await lora.convertAdapter(dir, path, { format: "gguf" });
  const { tensors } = readGguf(path);
  const shapes = Object.fromEntries(Object.entries(tensors).map(([name, { shape }]) => [name, shape]));
  t.deepEqual(shapes, {
    "token_embd.weight.lora_a": [2, 97],
    "token_embd.weight.lora_b": [2, 48],
    "output.weight.lora_a": [48, 2],
    "output.weight.lora_b": [2, 97],
  });
  const key = "base_model.model.model.embed_tokens.lora_embedding_A";
  const [a, own] = [matrix(tensors["token_embd.weight.lora_a"]), hashed(key, [2, 97])];
  t.is(a.at(5, 1), own[97 + 5] as number);
  model.dispose();
});

const refused: [keyof typeof GGUF_REFUSALS, lora.InjectOptions, RegExp, string?][] = [
  [
    "dora",
    { targetModules: ["q_proj"], useDora: true },
    /DoRA cannot be written in an adapter as GGUF: .*magnitudes/,
  ],
  [
    "biases",
    { targetModules: ["q_proj"], bias: "all" },
    /the bias of model\.layers\.0\.self_attn\.k_proj, .* cannot/,
  ],
  ["factorBiases", { targetModules: ["q_proj"], loraBias: true }, /q_proj\.lora_B\.bias cannot/],
  ["modulesToSave", { targetModules: ["q_proj"], modulesToSave: ["lm_head"] }, /lm_head\.weight cannot/],
  [
    "tokens",
    { targetModules: ["q_proj"], trainableTokenIndices: { embed_tokens: [3] } },
    /trainable_tokens_delta cannot/,
  ],
  ["tied", { targetModules: ["embed_tokens"] }, /model\.embed_tokens cannot/, tied],
];

for (const [which, options, message, folder = llama] of refused) {
  test(`refused: ${GGUF_REFUSALS[which].what}`, async (t) => {
    const { model, dir } = await adapted(folder, { r: 2, ...options });
    const path = join(temporary(), "adapter.gguf");
    const error = await t.throwsAsync(lora.convertAdapter(dir, path, { format: "gguf" }), {
      code: "ERR_OPTION",
      message,
    });
    t.true(error?.message.endsWith(`${GGUF_REFUSALS[which].reason}; ${GGUF_REFUSALS[which].instead}`));
    t.deepEqual(readdirSync(dirname(path)), []);
    model.dispose();
  });
}

test("refused: layers that llama.cpp does not adapt, blocks beyond the model's, and other families", async (t) => {
  const gpt2 = goldenModel(join(goldens, "families/gpt2"), { tie_word_embeddings: false }, undefined, {
    "lm_head.weight": [97, 32],
  });
  const { model, dir } = await adapted(gpt2, { r: 2, targetModules: ["wpe"] });
  const path = join(temporary(), "adapter.gguf");
  await t.throwsAsync(lora.convertAdapter(dir, path, { format: "gguf" }), {
    code: "ERR_OPTION",
    message: /transformer\.wpe cannot be written in an adapter as GGUF: llama\.cpp adapts only projections/,
  });
  model.dispose();

  const { model: two, dir: own } = await adapted(llama, { r: 2, targetModules: ["q_proj"] });
  const one = LlamaForCausalLM.fromConfig({
    vocab_size: 97,
    hidden_size: 48,
    intermediate_size: 80,
    num_hidden_layers: 1,
    num_attention_heads: 6,
  });
  await t.throwsAsync(lora.convertAdapter(own, path, { format: "gguf", model: one }), {
    code: "ERR_UNMATCHED_KEY",
    message: /layers\.1\.self_attn\.q_proj is beyond the model's 1 blocks/,
  });
  const bert = await loadModel(goldenModel(join(goldens, "families/bert")), {
    device: "cpu",
    task: "sequence-classification",
  });
  await t.throwsAsync(lora.convertAdapter(own, path, { format: "gguf", model: bert }), {
    code: "ERR_UNSUPPORTED_MODEL",
    message: /model_type "bert" cannot be written in an adapter as GGUF/,
  });
  await t.throwsAsync(lora.convertAdapter(own, path, { format: "gguf", model: new nn.Linear(2, 2) }), {
    code: "ERR_OPTION",
    message: /gguf asks for a model that loadModel gives/,
  });
  const odd = LlamaForCausalLM.fromConfig({
    vocab_size: 97,
    hidden_size: 48,
    intermediate_size: 80,
    num_hidden_layers: 2,
    num_attention_heads: 5,
    head_dim: 8,
  });
  await t.throwsAsync(lora.convertAdapter(own, path, { format: "gguf", model: odd }), {
    code: "ERR_SHAPE_MISMATCH",
    message: /B of model\.layers\.0\.self_attn\.q_proj has 96 rows, which are not 5 heads/,
  });
  t.false(existsSync(path));
  for (const model of [two, one, bert, odd]) model.dispose();
});

test("the base is the given model, or the folder that the adapter names", async (t) => {
  const { model, dir } = await adapted(llama, { r: 2, targetModules: ["q_proj"] });
  model.dispose();
  const config = join(dir, "adapter_config.json");
  const text = readFileSync(config, "utf8");
  const named = (base: string | null): void =>
    writeFileSync(config, JSON.stringify({ ...JSON.parse(text), base_model_name_or_path: base }));
  const path = join(temporary(), "adapter.gguf");
  const convert = (): Promise<void> => lora.convertAdapter(dir, path, { format: "gguf" });
  named(null);
  await t.throwsAsync(convert(), {
    code: "ERR_OPTION",
    message: /names no base model; give the model with model/,
  });
  named("owner/model");
  await t.throwsAsync(convert(), {
    code: "ERR_OPTION",
    message: /its base, owner\/model, is not here/,
  });
  const empty = temporary();
  named(empty);
  await t.throwsAsync(convert(), { code: "ERR_FILE_NOT_FOUND", message: /config\.json: no such file/ });
  for (const [wrong, message] of [
    ["{", /config\.json: not JSON/],
    ["[]", /a JSON object was expected/],
    ['{"model_type":"llama"}', /num_attention_heads must be a whole number of at least 1, got undefined/],
  ] as const) {
    writeFileSync(join(empty, "config.json"), wrong);
    await t.throwsAsync(convert(), { code: "ERR_FILE_FORMAT", message });
  }
  t.false(existsSync(path));
  const status = await runCli([
    "export",
    "--adapter",
    dir,
    "--format",
    "gguf",
    "--output",
    path,
    "--model",
    llama,
  ]);
  t.is(status, 0);
  t.is(Object.keys(readGguf(path).tensors).length, 4);
});

test("a file in kohya's format becomes the same GGUF", async (t) => {
  const { model, dir } = await adapted(llama, { r: 2, loraAlpha: 6, targetModules: ["q_proj", "down_proj"] });
  const folder = temporary();
  const [kohya, direct, through] = ["k.safetensors", "direct.gguf", "through.gguf"].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  lora.unload(model);
  await lora.convertAdapter(dir, kohya, { format: "kohya" });
  await lora.convertAdapter(dir, direct, { format: "gguf" });
  await lora.convertAdapter(kohya, through, { format: "gguf", model });
  const [one, other] = [readGguf(direct), readGguf(through)];
  t.deepEqual(Object.keys(other.tensors).sort(), Object.keys(one.tensors).sort());
  for (const name of ["blk.1.attn_q.weight", "blk.0.ffn_down.weight"])
    t.true(Math.abs(deltaOf(one, name)(3, 5) - deltaOf(other, name)(3, 5)) < 1e-6, name);
  model.dispose();
});
