/**
 * llama.cpp's names of families and tensors. Sources: gguf-py's constants.py and tensor_mapping.py, and llama.cpp's
 * src/models.
 */
import type { Tensor } from "../tensor/tensor.js";

/** A family in llama.cpp. */
export interface Architecture {
  /** `general.architecture`, the prefix of its keys. */
  name: string;
  /** Whether transformers ties the head by default. */
  tied: boolean;
  /** Modules outside the blocks, by transformers' paths without the family's prefix. */
  outer: Readonly<Record<string, string>>;
  /** Modules of a block. */
  block: Readonly<Record<string, string>>;
  /** The path component before a block's number. */
  blocks: "layers" | "h";
  /** Whether rows of q and k are interleaved in rotary pairs: (0, D/2), (1, D/2 + 1), …. */
  paired?: boolean | undefined;
  /** Whether norms are stored as 1 + w. */
  shiftedNorms?: boolean | undefined;
}

const OUTER = { embed_tokens: "token_embd", norm: "output_norm", lm_head: "output" };
const ATTENTION = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
};
const MLP = { "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down" };
const NORMS = { input_layernorm: "attn_norm", post_attention_layernorm: "ffn_norm" };
const HEAD_NORMS = { "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm" };

const llama: Architecture = {
  name: "llama",
  tied: false,
  outer: OUTER,
  blocks: "layers",
  block: { ...ATTENTION, ...MLP, ...NORMS },
  paired: true,
};

/** Architectures by transformers' `model_type`. */
export const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama,
  mistral: llama,
  qwen2: { ...llama, name: "qwen2", paired: false },
  qwen3: { ...llama, name: "qwen3", paired: false, block: { ...llama.block, ...HEAD_NORMS } },
  gemma3_text: {
    name: "gemma3",
    tied: true,
    outer: OUTER,
    blocks: "layers",
    block: {
      ...ATTENTION,
      ...MLP,
      ...HEAD_NORMS,
      input_layernorm: "attn_norm",
      post_attention_layernorm: "post_attention_norm",
      pre_feedforward_layernorm: "ffn_norm",
      post_feedforward_layernorm: "post_ffw_norm",
    },
    shiftedNorms: true,
  },
  phi3: {
    name: "phi3",
    tied: false,
    outer: OUTER,
    blocks: "layers",
    block: {
      "self_attn.qkv_proj": "attn_qkv",
      "self_attn.o_proj": "attn_output",
      "mlp.gate_up_proj": "ffn_up",
      "mlp.down_proj": "ffn_down",
      ...NORMS,
    },
  },
  gpt2: {
    name: "gpt2",
    tied: true,
    outer: { wte: "token_embd", wpe: "position_embd", ln_f: "output_norm", lm_head: "output" },
    blocks: "h",
    block: {
      ln_1: "attn_norm",
      "attn.c_attn": "attn_qkv",
      "attn.c_proj": "attn_output",
      ln_2: "ffn_norm",
      "mlp.c_fc": "ffn_up",
      "mlp.c_proj": "ffn_down",
    },
  },
};

/** A module in llama.cpp. */
export interface GgufModule {
  /** `blk.0.attn_q`; its tensors append `.weight` or `.bias`. */
  name: string;
  /** Its name without the block: `attn_q`. */
  kind: string;
  /** Its block's number; undefined outside the blocks. */
  block: number | undefined;
}

/**
 * Returns the module for a path in transformers, with or without the family's prefix; undefined where llama.cpp has
 * none.
 */
export function findGgufModule(architecture: Architecture, path: string): GgufModule | undefined {
  const bare = path.replace(/^(model|transformer)\./, "");
  const outer = readOwn(architecture.outer, bare);
  if (outer !== undefined) return { name: outer, kind: outer, block: undefined };
  const [, blocks, number, inner] = /^(layers|h)\.(0|[1-9]\d*)\.(.+)$/.exec(bare) ?? [];
  const kind =
    inner === undefined || blocks !== architecture.blocks ? undefined : readOwn(architecture.block, inner);
  return kind === undefined ? undefined : { name: `blk.${number}.${kind}`, kind, block: Number(number) };
}

function readOwn(names: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(names, key) ? names[key] : undefined;
}

/**
 * Reorders the rows of q or k, [heads · D, …], for llama.cpp's Llama, which rotates adjacent rows where transformers
 * rotates the halves of a head: row 2i of a head is its row i, and row 2i + 1 its row D/2 + i.
 */
export function interleaveRows(rows: Tensor, heads: number): Tensor {
  const { shape } = rows;
  const half = (shape[0] as number) / heads / 2;
  return rows
    .reshape(heads, 2, half, -1)
    .permute(0, 2, 1, 3)
    .reshape(...shape);
}
