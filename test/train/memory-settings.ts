/** Runs of every kind, whose memory is estimated beforehand. */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  Gemma3ForCausalLM,
  GPT2LMHeadModel,
  LlamaForCausalLM,
  manualSeed,
  Phi3ForCausalLM,
  saveModel,
  type FinetuneOptions,
  type PretrainedModel,
} from "../../src/index.js";
import { ggufModelFile } from "../gguf/models.js";
import { tokenizerMetadata } from "../gguf/tokenizers.js";
import { temporary, tinyModel } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { speechFile, tinyWhisper, tones } from "../tiny-whisper.js";

/** The sizes of most of the models. */
export const SIZES = {
  vocab_size: 99,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
  eos_token_id: 2,
};

/** Returns the folder of a model whose tokenizer reads letters. */
async function folderOf(model: PretrainedModel): Promise<string> {
  const folder = join(temporary(), "model");
  await saveModel(model, folder);
  model.dispose();
  copyFileSync(join(tinyModel(), "tokenizer.json"), join(folder, "tokenizer.json"));
  return folder;
}

const FAMILIES: Record<string, () => Promise<string>> = {
  llama: () =>
    folderOf(LlamaForCausalLM.fromConfig({ ...SIZES, tie_word_embeddings: true }, { device: "cpu" })),
  qwen3: () =>
    folderOf(LlamaForCausalLM.fromConfig({ ...SIZES, model_type: "qwen3", head_dim: 16 }, { device: "cpu" })),
  gemma3: () => folderOf(Gemma3ForCausalLM.fromConfig({ ...SIZES, head_dim: 16 }, { device: "cpu" })),
  phi3: () => folderOf(Phi3ForCausalLM.fromConfig({ ...SIZES, pad_token_id: 0 }, { device: "cpu" })),
  gpt2: () =>
    folderOf(
      GPT2LMHeadModel.fromConfig(
        {
          vocab_size: 99,
          n_embd: 64,
          n_head: 4,
          n_layer: 3,
          n_positions: 256,
          resid_pdrop: 0,
          embd_pdrop: 0,
          attn_pdrop: 0,
          bos_token_id: 2,
          eos_token_id: 2,
        },
        { device: "cpu" },
      ),
    ),
  bert: () => tinyEncoder(),
  whisper: () => tinyWhisper(),
  gguf: () => {
    const { vocabulary, metadata } = tokenizerMetadata("smollm");
    return Promise.resolve(
      ggufModelFile("llama", "q4_0", { size: 64, vocabulary, metadata, positions: 256 }),
    );
  },
};

const WHALE = "the whale swam on and on, and the sea was wide. ";

/** Returns a text whose blocks all have the same number of tokens. */
function text(): string {
  const file = join(temporary(), "text.txt");
  writeFileSync(file, WHALE.repeat(3000));
  return file;
}

/** Returns rows of 20 to 220 letters. */
function rows(count: number): string {
  return rowsFile(
    Array.from({ length: count }, (_, i) => ({ text: WHALE.repeat(5).slice(0, 20 + ((i * 83) % 201)) })),
  );
}

const DATA: Record<string, () => string> = {
  text,
  rows: () => rows(48),
  // More rows than an estimate tokenises.
  many: () => rows(1500),
  labels: () => rowsFile(seaAndLand(48)),
  tones: () => speechFile(tones(16)),
};

/** The name of a setting, its model family, its data, and the other options of `finetune`. */
export interface Setting {
  name: string;
  family: string;
  data: string;
  options: Partial<FinetuneOptions>;
  /** Whether its model has dropout: other batch sizes draw other masks. */
  drops: boolean;
}

function setting(
  name: string,
  family: string,
  data: string,
  options: Partial<FinetuneOptions> = {},
): Setting {
  const drops = family === "whisper" || options.lora?.loraDropout !== undefined;
  return { name, family, data, options, drops };
}

export const SETTINGS: readonly Setting[] = [
  setting("rows one by one", "llama", "rows"),
  setting("short blocks", "llama", "text", { maxLength: 32, gradientAccumulation: 4 }),
  setting("long blocks", "llama", "text", { maxLength: 256, batchSize: 4 }),
  setting("long blocks, checkpointed", "llama", "text", {
    maxLength: 256,
    batchSize: 4,
    gradientCheckpointing: true,
  }),
  setting("rank 64", "llama", "text", { maxLength: 128, batchSize: 2, lora: { r: 64 } }),
  setting("many rows of varying length", "llama", "many", { batchSize: 4, maxLength: 256, steps: 40 }),
  setting("weights in bf16", "llama", "text", { maxLength: 128, batchSize: 4, dtype: "bf16" }),
  setting("weights in q8_0", "llama", "text", { maxLength: 128, batchSize: 4, quantize: "q8_0" }),
  setting("weights in nf4, checkpointed", "llama", "text", {
    maxLength: 128,
    batchSize: 4,
    quantize: "nf4",
    gradientCheckpointing: true,
  }),
  setting("DoRA", "llama", "text", { maxLength: 128, batchSize: 4, lora: { r: 8, useDora: true } }),
  setting("PiSSA", "llama", "text", {
    maxLength: 128,
    batchSize: 4,
    lora: { r: 8, initLoraWeights: "pissa" },
  }),
  setting("dropout, LoRA+", "llama", "text", {
    maxLength: 128,
    batchSize: 4,
    lora: { r: 8, loraDropout: 0.1 },
    optimizer: { lr: 1e-3, loraPlusRatio: 4 },
  }),
  setting("packed rows", "llama", "rows", { packing: true, maxLength: 256, batchSize: 2 }),
  setting("rows held out", "llama", "rows", { evalSplit: 0.25, evalEvery: 4, batchSize: 4 }),
  setting("the head trained whole", "llama", "text", {
    maxLength: 128,
    batchSize: 4,
    lora: { r: 8, modulesToSave: ["lm_head"], bias: "all" },
  }),
  setting("Qwen3", "qwen3", "text", { maxLength: 200, batchSize: 4 }),
  setting("Qwen3 in f16 and q4_0", "qwen3", "rows", { dtype: "f16", quantize: "q4_0", batchSize: 4 }),
  setting("Gemma 3", "gemma3", "text", { maxLength: 200, batchSize: 4 }),
  setting("Phi-3, checkpointed", "phi3", "text", {
    maxLength: 128,
    batchSize: 8,
    gradientCheckpointing: true,
  }),
  setting("GPT-2", "gpt2", "text", { maxLength: 128, batchSize: 4 }),
  setting("GPT-2 in bf16, checkpointed", "gpt2", "rows", {
    dtype: "bf16",
    batchSize: 6,
    gradientCheckpointing: true,
  }),
  setting("a classifier", "bert", "labels", { batchSize: 8 }),
  setting("speech", "whisper", "tones", { batchSize: 4, language: "en" }),
  setting("a GGUF file in q4_0", "gguf", "text", { maxLength: 200, batchSize: 4 }),
];

const folders = new Map<string, Promise<string>>();
const files = new Map<string, string>();

/** Returns the options of a run of a setting: ten steps, unless it sets their number. */
export async function runOf({ family, data, options }: Setting, device: string): Promise<FinetuneOptions> {
  manualSeed(11);
  const model = folders.get(family) ?? (FAMILIES[family] as () => Promise<string>)();
  folders.set(family, model);
  const file = files.get(data) ?? (DATA[data] as () => string)();
  files.set(data, file);
  return {
    model: await model,
    data: file,
    device,
    output: join(temporary(), "out"),
    lora: { r: 8 },
    optimizer: { lr: 1e-3 },
    gradientAccumulation: 1,
    steps: 10,
    ...options,
  };
}
