/** Models as GGUF files that llama.cpp runs. */
import { basename } from "node:path";

import { ARCHITECTURES, ggufModule, pairedRows, type Architecture } from "../../gguf/architectures.js";
import { GGUF_TYPES, type GgufType } from "../../gguf/blocks.js";
import { refuseGguf } from "../../gguf/refusals.js";
import { storableAs, storedBytes } from "../../gguf/stored.js";
import { writeGguf, type GgufTensor, type GgufValue } from "../../gguf/writer.js";
import { LowrankError } from "../../errors.js";
import { some } from "../../lora/formats/adapter-file.js";
import type { Tensor } from "../../tensor.js";
import { CausalLM } from "../causal-lm.js";
import type { PretrainedModel } from "../pretrained.js";
import { writtenModel, type WrittenConfig } from "./metadata.js";
import { writtenSpecialTokens } from "./special-tokens.js";
import { writtenVocabulary } from "./vocabulary.js";

/** `general.file_type`: what most of the values are stored as. */
const FILE_TYPES: Record<GgufType, number> = { f32: 0, f16: 1, q4_0: 2, q8_0: 7, bf16: 32 };

/**
 * Writes a language model as one GGUF file, its matrices stored as `type` (as in memory unless given), tensor by tensor.
 * Vectors, norms and position embeddings are f32; a matrix whose rows are no whole blocks is f16. `notice` is told of
 * both, and of what llama.cpp computes otherwise. Throws `ERR_OPTION` for what is refused, `ERR_DTYPE`,
 * `ERR_NOT_FINITE`, `ERR_WRITE`, the signal's reason.
 */
export async function exportGguf(
  model: PretrainedModel,
  file: string,
  type: GgufType | undefined,
  { notice, signal }: { notice: (text: string) => void; signal?: AbortSignal | undefined },
): Promise<void> {
  const config = model.config as WrittenConfig;
  const architecture = Object.hasOwn(ARCHITECTURES, config.modelType)
    ? ARCHITECTURES[config.modelType]
    : undefined;
  if (architecture === undefined || !(model instanceof CausalLM))
    refuseGguf("modelFamily", file, `a model of model_type "${config.modelType}"`, "ERR_UNSUPPORTED_MODEL");
  const written = writtenModel(file, architecture, config);
  const said = [...written.notices];
  const seen = new Set<Tensor>();
  const tensors: GgufTensor[] = [];
  const uneven: string[] = [];
  for (const [name, tensor] of Object.entries(model.stateDict())) {
    // A tied head is the embedding.
    if (seen.has(tensor)) continue;
    seen.add(tensor);
    const one = ggufTensor(file, architecture, config, name, tensor, type);
    if (type !== undefined && one.type === "f16" && type !== "f16") uneven.push(one.name);
    tensors.push(one);
  }
  for (const [name, values] of written.factors) tensors.push(vector(name, values));
  if (uneven.length > 0)
    said.push(`${file}: stored as f16, since their rows are no whole blocks of 32: ${some(uneven)}`);
  const first = tensors.find(({ name }) => name === "token_embd.weight")?.type ?? "f32";
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { text: architecture.name }],
    ["general.type", { text: "model" }],
    ["general.name", { text: basename(model.source ?? "") || architecture.name }],
    ["general.file_type", { u32: FILE_TYPES[type ?? first] }],
    ["general.quantization_version", { u32: 2 }],
    ...written.keys.map(([key, value]): [string, GgufValue] => [`${architecture.name}.${key}`, value]),
    ...vocabulary(file, model, said),
  ]);
  for (const text of said) notice(text);
  await writeGguf(file, metadata, tensors, signal);
}

/** A tensor of the state dict under llama.cpp's name, in its order. */
function ggufTensor(
  file: string,
  architecture: Architecture,
  config: WrittenConfig,
  name: string,
  tensor: Tensor,
  type: GgufType | undefined,
): GgufTensor {
  const dot = name.lastIndexOf(".");
  const [path, end] = [name.slice(0, dot), name.slice(dot + 1)];
  const found = ggufModule(architecture, path);
  if (found === undefined || (end !== "weight" && end !== "bias"))
    throw new LowrankError("ERR_INTERNAL", `${file}: ${name} has no name in GGUF`);
  const { kind } = found;
  const turned = config.modelType === "gpt2" && end === "weight" && /\.(c_attn|c_proj|c_fc)$/.test(path);
  const shape = turned ? tensor.shape.toReversed() : tensor.shape;
  const matrix = end === "weight" && shape.length > 1 && kind !== "position_embd";
  const stored = matrix ? storableAs(type ?? inMemory(tensor), shape) : "f32";
  const change = (one: Tensor): Tensor => {
    if (turned) return one.transpose();
    if (architecture.shiftedNorms === true && kind.endsWith("norm")) return one.add(1);
    if (architecture.paired === true && "numKeyValueHeads" in config) {
      if (kind === "attn_q") return pairedRows(one, config.numAttentionHeads);
      if (kind === "attn_k") return pairedRows(one, config.numKeyValueHeads);
    }
    return one;
  };
  return {
    name: `${found.name}.${end}`,
    shape,
    type: stored,
    bytes: () => storedBytes(file, name, tensor, stored, change),
  };
}

/** How a tensor is stored now, where GGUF has the type. */
function inMemory({ dtype }: Tensor): GgufType {
  return Object.hasOwn(GGUF_TYPES, dtype) ? (dtype as GgufType) : "f32";
}

function vector(name: string, values: Float32Array): GgufTensor {
  return {
    name,
    shape: [values.length],
    type: "f32",
    bytes: () => Promise.resolve(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)),
  };
}

/** The tokenizer's keys; of a model without one, that it has none. */
function vocabulary(file: string, model: CausalLM, said: string[]): [string, GgufValue][] {
  const { tokenizer } = model;
  if (tokenizer === undefined) {
    said.push(`${file}: the model came without a tokenizer.json, so the file takes ids alone`);
    return [["tokenizer.ggml.model", { text: "none" }]];
  }
  const { chatTemplate } = tokenizer;
  const { place, text } = tokenizer.source();
  return [
    ...writtenVocabulary(file, place, text, model.config.vocabSize, (text) => said.push(text)),
    ...writtenSpecialTokens(file, model, tokenizer),
    ...(chatTemplate === undefined
      ? []
      : [["tokenizer.chat_template", { text: chatTemplate }] satisfies [string, GgufValue]]),
  ];
}
