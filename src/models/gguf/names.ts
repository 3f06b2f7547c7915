/** Tensors of a GGUF file under the names that transformers has, and what its converter has done to them. */
import type { Metadata } from "./metadata.js";

/** What is undone as a tensor is read. */
export type Undone =
  /** Rows of rotary heads whose pairs are neighbours become halves. */
  | { rows: "query" | "key" }
  /** [out, in] becomes [in, out]. */
  | "transposed"
  /** 1 is taken off. */
  | "one";

/** How an architecture's tensors are called, and which of them are undone. */
export interface Names {
  /** Outside of blocks, without `.weight` or `.bias`. */
  outer: Readonly<Record<string, string>>;
  /** Where block N is: what stands before what `inner` gives. */
  block: string;
  /** In a block. */
  inner: Readonly<Record<string, string>>;
  /** By the name in the file, without the block. */
  undone?: ((name: string) => Undone | undefined) | undefined;
}

const OUTER = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

const INNER = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

const HEAD_NORMS = { attn_q_norm: "self_attn.q_norm", attn_k_norm: "self_attn.k_norm" };

const decoder = (inner: Readonly<Record<string, string>>, undone?: Names["undone"]): Names => ({
  outer: OUTER,
  block: "model.layers",
  inner,
  undone,
});

/** Every architecture that is read, by `general.architecture`. */
export const NAMES = {
  llama: decoder(INNER, (name) => {
    if (name.startsWith("attn_q.")) return { rows: "query" };
    return name.startsWith("attn_k.") ? { rows: "key" } : undefined;
  }),
  qwen2: decoder(INNER),
  qwen3: decoder({ ...INNER, ...HEAD_NORMS }),
  gemma3: decoder(
    {
      ...INNER,
      ...HEAD_NORMS,
      post_attention_norm: "post_attention_layernorm",
      ffn_norm: "pre_feedforward_layernorm",
      post_ffw_norm: "post_feedforward_layernorm",
    },
    (name) => (name.endsWith("_norm.weight") ? "one" : undefined),
  ),
  phi3: decoder({ ...INNER, attn_qkv: "self_attn.qkv_proj", ffn_up: "mlp.gate_up_proj" }),
  gpt2: {
    outer: {
      token_embd: "transformer.wte",
      position_embd: "transformer.wpe",
      output_norm: "transformer.ln_f",
      output: "lm_head",
    },
    block: "transformer.h",
    inner: {
      attn_norm: "ln_1",
      attn_qkv: "attn.c_attn",
      attn_output: "attn.c_proj",
      ffn_norm: "ln_2",
      ffn_up: "mlp.c_fc",
      ffn_down: "mlp.c_proj",
    },
    undone: (name) =>
      /^(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$/.test(name) ? "transposed" : undefined,
  },
} as const satisfies Record<string, Names>;

export type Architecture = keyof typeof NAMES;

/** The architecture of a file. Throws `ERR_UNSUPPORTED_MODEL`, `ERR_FILE_FORMAT`. */
export function architectureOf(meta: Metadata): Architecture {
  const key = "general.architecture";
  const name = meta.text(key);
  const known = Object.keys(NAMES) as Architecture[];
  if (name === undefined) {
    throw meta.error(key, `is missing, so the file holds no model; read are ${known.join(", ")}`);
  }
  const found = known.find((one) => one === name);
  if (found !== undefined) return found;
  throw meta.unsupported(
    `the architecture "${name}" is not supported in GGUF files; supported are ${known.join(", ")}`,
  );
}

/** Tensors that say how positions are turned; the configuration has them. */
export const FACTORS = {
  all: "rope_freqs.weight",
  short: "rope_factors_short.weight",
  long: "rope_factors_long.weight",
};

/** A tensor's name in transformers, and what is undone; a name that is none of the architecture's stays. */
export function named(names: Names, name: string): { name: string; undone?: Undone | undefined } {
  const [, layer, own = name, path, kind] = /^(?:blk\.(\d+)\.)?(([^.]+)\.(weight|bias))$/.exec(name) ?? [];
  if (path === undefined || kind === undefined) return { name };
  const known = layer === undefined ? names.outer[path] : names.inner[path];
  if (known === undefined) return { name };
  const undone = names.undone?.(own);
  const full = layer === undefined ? known : `${names.block}.${layer}.${known}`;
  return { name: `${full}.${kind}`, undone };
}
