/** Converts the rotary positions of a GGUF file to fields of `config.json`. */
import { computeFrequencies } from "../../models/decoder/rope.js";
import type { Metadata } from "./metadata.js";
import type { ArchitectureName } from "./names.js";

/** Divisors of the frequencies, stored as tensors: for all texts, or separately for short and long ones. */
export interface Factors {
  all?: readonly number[] | undefined;
  short?: readonly number[] | undefined;
  long?: readonly number[] | undefined;
}

/** Metadata values under the architecture's prefix. */
interface Own {
  number(name: string): number | undefined;
  text(name: string): string | undefined;
}

interface Turning {
  architecture: ArchitectureName;
  headDim: number;
  /** Dimensions of a head that are rotated. */
  turned: number;
  /** The longest text, in tokens. */
  positions: number;
  factors: Factors;
}

/** Returns the rotation's fields. Throws `ERR_UNSUPPORTED_MODEL`. */
export function readRotation(fields: Own, meta: Metadata, turning: Turning): Record<string, unknown> {
  const theta = fields.number("rope.freq_base") ?? (turning.architecture === "gemma3" ? 1e6 : 1e4);
  const base = {
    rope_theta: theta,
    ...(turning.turned !== turning.headDim && { partial_rotary_factor: turning.turned / turning.headDim }),
  };
  const original = fields.number("rope.scaling.original_context_length");
  const attention =
    fields.number("rope.scaling.attn_factor") ?? fields.number("rope.scaling.yarn_attn_factor");
  const factor = fields.number("rope.scaling.factor") ?? fields.number("rope.scale_linear");
  const type = fields.text("rope.scaling.type") ?? (factor === undefined ? "none" : "linear");
  const { all, short, long } = turning.factors;
  if (short !== undefined && long !== undefined) {
    const rope_scaling = {
      rope_type: "longrope",
      short_factor: short,
      long_factor: long,
      ...(attention !== undefined && { attention_factor: attention }),
    };
    return { ...base, original_max_position_embeddings: original, rope_scaling };
  }
  if (all !== undefined) {
    if (type !== "none")
      throw meta.createUnsupported(`rope_freqs.weight beside rope scaling "${type}" is not supported`);
    return { ...base, rope_scaling: recogniseScaling(all, theta, turning) };
  }
  if (type === "none") return base;
  if (type === "linear") return { ...base, rope_scaling: { rope_type: "linear", factor: factor ?? 1 } };
  if (type !== "yarn") throw meta.createUnsupported(`rope scaling "${type}" is not supported in GGUF files`);
  const grown = factor ?? turning.positions / (original ?? turning.positions);
  const rope_scaling = {
    rope_type: "yarn",
    factor: grown,
    original_max_position_embeddings: original ?? turning.positions,
    ...spread(fields),
    // ggml multiplies YaRN's own factor by the file's.
    ...(attention !== undefined && {
      attention_factor: attention * (grown <= 1 ? 1 : 0.1 * Math.log(grown) + 1),
    }),
  };
  return { ...base, rope_scaling };
}

function spread(fields: Own): Record<string, number> {
  const [fast, slow] = [
    fields.number("rope.scaling.yarn_beta_fast"),
    fields.number("rope.scaling.yarn_beta_slow"),
  ];
  return { ...(fast !== undefined && { beta_fast: fast }), ...(slow !== undefined && { beta_slow: slow }) };
}

/** The parameters of Llama 3.1 and 3.2; files contain only the resulting factors. */
const LLAMA3 = { lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 };

/** Recognises Llama 3's scaling by its factors; otherwise returns LongRoPE with these factors for all lengths. */
function recogniseScaling(
  factors: readonly number[],
  theta: number,
  { headDim, positions }: Turning,
): Record<string, unknown> {
  const factor = Math.max(...factors);
  const plain = computeFrequencies({ headDim, rope: { theta, scaling: { type: "default" } } });
  const scaled = computeFrequencies({
    headDim,
    rope: { theta, scaling: { type: "llama3", factor, ...LLAMA3 } },
  });
  const same = factors.every((given, i) => {
    const expected = (plain[i] as number) / (scaled[i] as number);
    return Math.abs(given - expected) <= 1e-5 * expected;
  });
  if (same && factors.length === plain.length) {
    return {
      rope_type: "llama3",
      factor,
      low_freq_factor: LLAMA3.lowFreqFactor,
      high_freq_factor: LLAMA3.highFreqFactor,
      original_max_position_embeddings: LLAMA3.originalMaxPositionEmbeddings,
    };
  }
  return {
    rope_type: "longrope",
    short_factor: factors,
    long_factor: factors,
    original_max_position_embeddings: positions,
    attention_factor: 1,
  };
}
