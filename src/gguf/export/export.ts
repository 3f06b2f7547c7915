/** Exports models as GGUF files for llama.cpp. */
import { basename } from "node:path";

import { ARCHITECTURES, findGgufModule, interleaveRows, type Architecture } from "../architectures.js";
import { GGUF_TYPES, type GgufFileType, type GgufType, isFileType, chooseWritable } from "../types.js";
import { refuseGguf } from "../refusals.js";
import { chooseStorable, convertToBytes } from "../stored.js";
import { writeGguf, type GgufTensor, type GgufValue } from "../writer.js";
import { LowrankError } from "../../errors.js";
import { listSome } from "../../lora/formats/adapter-file.js";
import type { Tensor } from "../../tensor/tensor.js";
import { CausalLM } from "../../models/causal-lm.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { convertModel, type WrittenConfig } from "./metadata.js";
import { GgufSource } from "./source.js";
import { convertSpecialTokens } from "./special-tokens.js";
import { convertVocabulary } from "./vocabulary.js";

/** Values of `general.file_type`, the type of most tensors. */
const FILE_TYPES: Record<GgufFileType, number> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q8_0: 7,
  q5_0: 8,
  q5_1: 9,
  q2_k: 10,
  q3_k: 11,
  q4_k: 14,
  q5_k: 16,
  q6_k: 18,
  iq4_nl: 25,
  bf16: 32,
};

/**
 * Writes a language model as one GGUF file, tensor by tensor. Matrices are stored as `type`; by default as in the GGUF
 * file that the model was loaded from, else as in memory. A tensor whose values and type equal those in that file is
 * copied byte for byte. Vectors, norms and position embeddings are f32. A matrix whose row size is not a multiple of
 * the block size gets smaller blocks, or f16. `notice` reports matrices stored as another type than requested, and
 * cases in which llama.cpp computes differently. Throws `ERR_OPTION` for an unsupported model, `ERR_DTYPE`,
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
  const written = convertModel(file, architecture, config);
  const notices = [...written.notices];
  const source = GgufSource.open(model.ggufPath, {
    query: config.numAttentionHeads,
    key: "numKeyValueHeads" in config ? config.numKeyValueHeads : config.numAttentionHeads,
  });
  const seen = new Set<Tensor>();
  const tensors: GgufTensor[] = [];
  const other = new Map<string, string[]>();
  for (const [name, tensor] of Object.entries(model.stateDict())) {
    // A tied head shares the embedding's tensor.
    if (seen.has(tensor)) continue;
    seen.add(tensor);
    const { why, ...exported } = await exportTensor(file, architecture, config, name, tensor, type, source);
    tensors.push(exported);
    if (why !== undefined) other.set(why, [...(other.get(why) ?? []), exported.name]);
  }
  for (const [name, values] of written.factors) tensors.push(createVector(name, values));
  for (const [why, names] of other) notices.push(`${file}: ${why}: ${listSome(names)}`);
  const first = tensors.find(({ name }) => name === "token_embd.weight")?.type ?? "f32";
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { text: architecture.name }],
    ["general.type", { text: "model" }],
    ["general.name", { text: basename(model.source ?? "") || architecture.name }],
    [
      "general.file_type",
      { u32: (type === undefined ? source?.fileType : undefined) ?? FILE_TYPES[type ?? first] },
    ],
    ["general.quantization_version", { u32: 2 }],
    ...written.keys.map(([key, value]): [string, GgufValue] => [`${architecture.name}.${key}`, value]),
    ...exportVocabulary(file, model, notices),
  ]);
  for (const text of notices) notice(text);
  await writeGguf(file, metadata, tensors, signal);
}

/** Returns a tensor of the state dict with llama.cpp's name and layout; `why` explains a type other than requested. */
async function exportTensor(
  file: string,
  architecture: Architecture,
  config: WrittenConfig,
  name: string,
  tensor: Tensor,
  type: GgufType | undefined,
  source: GgufSource | undefined,
): Promise<GgufTensor & { why?: string | undefined }> {
  const dot = name.lastIndexOf(".");
  const [path, end] = [name.slice(0, dot), name.slice(dot + 1)];
  const found = findGgufModule(architecture, path);
  if (found === undefined || (end !== "weight" && end !== "bias"))
    throw new LowrankError("ERR_INTERNAL", `${file}: ${name} has no name in GGUF`);
  const { kind } = found;
  const isTransposed =
    config.modelType === "gpt2" && end === "weight" && /\.(c_attn|c_proj|c_fc)$/.test(path);
  const shape = isTransposed ? tensor.shape.toReversed() : tensor.shape;
  const matrix = end === "weight" && shape.length > 1 && kind !== "position_embd";
  const stored = `${found.name}.${end}`;
  const before = source?.findType(stored, shape);
  const wanted = matrix ? (type ?? before ?? findTypeInMemory(tensor)) : "f32";
  const change = (original: Tensor): Tensor => {
    if (isTransposed) return original.transpose();
    if (architecture.shiftedNorms === true && kind.endsWith("norm")) return original.add(1);
    if (architecture.paired === true && "numKeyValueHeads" in config) {
      if (kind === "attn_q") return interleaveRows(original, config.numAttentionHeads);
      if (kind === "attn_k") return interleaveRows(original, config.numKeyValueHeads);
    }
    return original;
  };
  const writable = chooseWritable(wanted);
  // A type that cannot be written can still be copied from the source file.
  const copied = wanted !== writable && source !== undefined && (await source.isUnchanged(stored, tensor));
  const chosen = copied ? wanted : chooseStorable(writable, shape);
  const isSame = (): Promise<boolean> =>
    copied || chosen !== before || source === undefined
      ? Promise.resolve(copied)
      : source.isUnchanged(stored, tensor);
  return {
    name: stored,
    shape,
    type: chosen,
    bytes: async () =>
      (await isSame())
        ? (source as GgufSource).readBytes(stored)
        : convertToBytes(file, name, tensor, chosen as GgufType, change),
    why: copied ? undefined : explainOtherType(wanted, writable, chosen as GgufType),
  };
}

/** Explains why a matrix is stored as another type than requested; undefined where it is not. */
function explainOtherType(wanted: GgufFileType, writable: GgufType, stored: GgufType): string | undefined {
  if (stored !== writable)
    return `stored as ${stored}, because their row size is not a multiple of ${GGUF_TYPES[writable].values}`;
  return wanted === writable
    ? undefined
    : `stored as ${stored}, the next larger type, because ${wanted} cannot be written`;
}

/** Returns the type of a tensor in memory, where GGUF has it; else f32. */
function findTypeInMemory({ dtype }: Tensor): GgufFileType {
  return isFileType(dtype) ? dtype : "f32";
}

function createVector(name: string, values: Float32Array): GgufTensor {
  return {
    name,
    shape: [values.length],
    type: "f32",
    bytes: () => Promise.resolve(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)),
  };
}

/** Returns the tokenizer's keys; without a tokenizer, the key that says so. */
function exportVocabulary(file: string, model: CausalLM, notices: string[]): [string, GgufValue][] {
  const { tokenizer } = model;
  if (tokenizer === undefined) {
    notices.push(`${file}: the model has no tokenizer.json, so the file accepts only token ids`);
    return [["tokenizer.ggml.model", { text: "none" }]];
  }
  const { chatTemplate } = tokenizer;
  const { place, text } = tokenizer.readSource();
  return [
    ...convertVocabulary(file, place, text, model.config.vocabSize, (text) => notices.push(text)),
    ...convertSpecialTokens(file, model, tokenizer),
    ...(chatTemplate === undefined
      ? []
      : [["tokenizer.chat_template", { text: chatTemplate }] satisfies [string, GgufValue]]),
  ];
}
