/** Converts a GGUF file's metadata and tensor names to fields of `config.json`. */
import type { GgufFile } from "../../native/binding.js";
import { ConfigFields } from "../../models/config-fields.js";
import { isList, type Metadata } from "./metadata.js";
import type { ArchitectureName } from "./names.js";
import { readRotation, type Factors } from "./rotation.js";

/** Keys that do not affect the computation, or that repeat what the tensors show. */
const ASIDE = new Set([
  "vocab_size",
  "rope.scaling.finetuned",
  "tensor_data_layout",
  "attention.causal",
  "attention.layer_norm_epsilon",
  "attention.layer_norm_rms_epsilon",
]);

/** Keys of unsupported features, rejected where they are set. */
const REFUSED = [
  "expert_count",
  "expert_used_count",
  "logit_scale",
  "residual_scale",
  "embedding_scale",
  "attention.clamp_kqv",
  "attention.max_alibi_bias",
  "nextn_predict_layers",
];

/** A file's sizes, under its architecture's keys. */
class Sizes {
  constructor(
    readonly meta: Metadata,
    readonly architecture: ArchitectureName,
  ) {}

  formatKey(name: string): string {
    return `${this.architecture}.${name}`;
  }

  readNumber(name: string): number | undefined {
    const key = this.formatKey(name);
    const value = this.meta.readValue(key);
    // In some architectures this is a list with one value per layer.
    if (!isList(value)) return this.meta.readNumber(key);
    if (value.length === 0 || !value.every((item) => item === value[0]))
      throw this.meta.createUnsupported(`${key} differs by layer, which is not supported`);
    return Number(value[0]);
  }

  requireNumber(name: string): number {
    return this.readNumber(name) ?? this.meta.requireNumber(this.formatKey(name));
  }
}

/**
 * Reads the configuration, with ggml's defaults for missing keys.
 *
 * Throws `ERR_FILE_FORMAT` for a key that is missing or of another type; `ERR_UNSUPPORTED_MODEL` for an unsupported
 * feature.
 */
export function convertConfig(
  meta: Metadata,
  file: GgufFile,
  architecture: ArchitectureName,
  factors: Factors,
): ConfigFields {
  const sizes = new Sizes(meta, architecture);
  for (const name of REFUSED) {
    const value = sizes.readNumber(name);
    if (value !== undefined && value !== 0)
      throw meta.createUnsupported(`${sizes.formatKey(name)} is ${value}, which is not supported`);
  }
  const names = new Set(file.names());
  const embedding = names.has("token_embd.weight") ? file.info("token_embd.weight").shape[0] : undefined;
  const tokens = meta.countTexts("tokenizer.ggml.tokens");
  const readId = (name: string): number | undefined => meta.readNumber(`tokenizer.ggml.${name}_token_id`);
  const ends = [readId("eos"), readId("eot"), readId("eom")].filter((end) => end !== undefined);
  const shared = {
    vocab_size: embedding ?? tokens,
    bos_token_id: readId("bos"),
    eos_token_id: [...new Set(ends)],
    pad_token_id: readId("padding"),
    tie_word_embeddings: !names.has("output.weight"),
  };
  const specific = architecture === "gpt2" ? convertGpt2(sizes) : convertDecoder(sizes, names, factors);
  const fields = { ...shared, ...specific };
  for (const name of ASIDE) meta.readValue(sizes.formatKey(name));
  return new ConfigFields(meta.where, fields);
}

function convertGpt2(sizes: Sizes): Record<string, unknown> {
  return {
    model_type: "gpt2",
    n_positions: sizes.requireNumber("context_length"),
    n_embd: sizes.requireNumber("embedding_length"),
    n_inner: sizes.requireNumber("feed_forward_length"),
    n_layer: sizes.requireNumber("block_count"),
    n_head: sizes.requireNumber("attention.head_count"),
    layer_norm_epsilon: sizes.readNumber("attention.layer_norm_epsilon"),
  };
}

const MODEL_TYPES = { llama: "llama", qwen2: "qwen2", qwen3: "qwen3", gemma3: "gemma3_text", phi3: "phi3" };

function convertDecoder(sizes: Sizes, names: ReadonlySet<string>, factors: Factors): Record<string, unknown> {
  const { meta, architecture } = sizes;
  const hidden = sizes.requireNumber("embedding_length");
  const heads = sizes.requireNumber("attention.head_count");
  const rotated = sizes.readNumber("rope.dimension_count");
  const values = sizes.readNumber("attention.value_length");
  const headDim =
    sizes.readNumber("attention.key_length") ??
    (architecture === "llama" ? rotated : undefined) ??
    hidden / heads;
  if (values !== undefined && values !== headDim)
    throw meta.createUnsupported(
      `value heads of ${values} dimensions with key heads of ${headDim} are not supported`,
    );
  const positions = sizes.requireNumber("context_length");
  const window = sizes.readNumber("attention.sliding_window") ?? 0;
  const layers = sizes.requireNumber("block_count");
  const shared = {
    model_type: MODEL_TYPES[architecture as keyof typeof MODEL_TYPES],
    hidden_size: hidden,
    intermediate_size: sizes.requireNumber("feed_forward_length"),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: sizes.readNumber("attention.head_count_kv"),
    head_dim: headDim,
    max_position_embeddings: positions,
    rms_norm_eps: sizes.requireNumber("attention.layer_norm_rms_epsilon"),
    ...readRotation(
      { number: (name) => sizes.readNumber(name), text: (name) => meta.readText(sizes.formatKey(name)) },
      meta,
      {
        architecture,
        headDim,
        turned: rotated ?? headDim,
        positions,
        factors,
      },
    ),
  };
  if (architecture === "gemma3")
    return { ...shared, ...convertGemma3(sizes, { hidden, heads, headDim, layers, window }) };
  if (architecture === "phi3") return { ...shared, sliding_window: window > 0 ? window : null };
  if (architecture === "llama" && window > 0)
    return { ...shared, model_type: "mistral", sliding_window: window };
  return {
    ...shared,
    attention_bias: names.has("blk.0.attn_q.bias"),
    mlp_bias: names.has("blk.0.ffn_gate.bias"),
    ...(window > 0 && { use_sliding_window: true, sliding_window: window, max_window_layers: 0 }),
  };
}

/** The block count of Gemma 3 27B, whose scores are scaled by hidden size / heads instead of the head size. */
const LARGEST = 62;

/** Reads Gemma 3's fields, with ggml's defaults for missing keys (llama.cpp's gemma3.cpp). */
function convertGemma3(
  sizes: Sizes,
  dimensions: { hidden: number; heads: number; headDim: number; layers: number; window: number },
): Record<string, unknown> {
  const scale = sizes.readNumber("attention.scale");
  const perHead = dimensions.layers === LARGEST ? dimensions.hidden / dimensions.heads : dimensions.headDim;
  const key = sizes.formatKey("attention.sliding_window_pattern");
  const pattern = sizes.meta.readValue(key);
  const kinds = isList(pattern)
    ? {
        layer_types: pattern.map((slides) =>
          slides === true || slides === 1 ? "sliding_attention" : "full_attention",
        ),
      }
    : { sliding_window_pattern: pattern === undefined ? 6 : sizes.meta.readNumber(key) };
  return {
    query_pre_attn_scalar: scale === undefined ? perHead : 1 / scale ** 2,
    // Without a window, all layers have full attention.
    ...(dimensions.window > 0
      ? { sliding_window: dimensions.window, ...kinds }
      : { sliding_window_pattern: 1 }),
    rope_local_base_freq: sizes.readNumber("rope.freq_base_swa") ?? 10_000,
    attn_logit_softcapping: sizes.readNumber("attn_logit_softcapping"),
    final_logit_softcapping: sizes.readNumber("final_logit_softcapping"),
  };
}
