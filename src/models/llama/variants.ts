/** Variants of Llama by `model_type`: transformers' defaults, and their differences. */
import type { ConfigFields } from "../config-fields.js";
import { LIMIT } from "../config-parts.js";

/** Which attention projections have biases. */
export interface AttentionBiases {
  /** q, k and v. */
  inputs: boolean;
  /** o. */
  output: boolean;
}

/** The sliding windows of a model. */
export interface Windows {
  /** Keys per query, its own included; undefined for no limit. */
  size: number | undefined;
  /** For each layer, whether it has the window; by default all layers do. */
  layers?: readonly boolean[] | undefined;
}

export interface Variant {
  /** The class in `architectures`. */
  architecture: string;
  /** Defaults for missing fields. */
  keyValueHeads?: number | undefined;
  headDim?: number | undefined;
  positions: number;
  biases(config: ConfigFields): AttentionBiases;
  mlpBias(config: ConfigFields): boolean;
  windows(config: ConfigFields, layers: number): Windows;
  /** Whether the queries and keys of each head are normalised. */
  headNorms: boolean;
}

const NO_BIASES = { inputs: false, output: false };

/** `attention_bias` applies to all four projections. */
function readAllBiases(config: ConfigFields): AttentionBiases {
  const all = config.readBoolean("attention_bias") ?? false;
  return { inputs: all, output: all };
}

/** Reads the window's size; null means none. */
function readWindow(config: ConfigFields, fallback: number): number | undefined {
  const given = config.readSize("sliding_window", LIMIT.positions);
  return given ?? (config.has("sliding_window") ? undefined : fallback);
}

const KINDS = ["full_attention", "sliding_attention"];

/**
 * Reads Qwen's windows: `layer_types`, or layers from `max_window_layers`; none unless `use_sliding_window` is true.
 */
function readQwenWindows(config: ConfigFields, layers: number): Windows {
  const size = readWindow(config, 4096);
  const first = config.readCount("max_window_layers", LIMIT.layers) ?? 28;
  const kinds = config.readWords("layer_types", KINDS, layers);
  if (!(config.readBoolean("use_sliding_window") ?? false) || size === undefined) return { size: undefined };
  const slides = kinds?.map((kind) => kind === "sliding_attention");
  return { size, layers: slides ?? Array.from({ length: layers }, (_, i) => i >= first) };
}

export const VARIANTS = {
  llama: {
    architecture: "LlamaForCausalLM",
    positions: 2048,
    biases: readAllBiases,
    mlpBias: (config) => config.readBoolean("mlp_bias") ?? false,
    windows: () => ({ size: undefined }),
    headNorms: false,
  },
  mistral: {
    architecture: "MistralForCausalLM",
    keyValueHeads: 8,
    positions: 131_072,
    biases: () => NO_BIASES,
    mlpBias: () => false,
    windows: (config) => ({ size: readWindow(config, 4096) }),
    headNorms: false,
  },
  qwen2: {
    architecture: "Qwen2ForCausalLM",
    keyValueHeads: 32,
    positions: 32_768,
    biases: () => ({ inputs: true, output: false }),
    mlpBias: () => false,
    windows: readQwenWindows,
    headNorms: false,
  },
  qwen3: {
    architecture: "Qwen3ForCausalLM",
    keyValueHeads: 32,
    headDim: 128,
    positions: 32_768,
    biases: readAllBiases,
    mlpBias: () => false,
    windows: readQwenWindows,
    headNorms: true,
  },
} as const satisfies Record<string, Variant>;

export type LlamaModelType = keyof typeof VARIANTS;

export const MODEL_TYPES = Object.keys(VARIANTS) as LlamaModelType[];
