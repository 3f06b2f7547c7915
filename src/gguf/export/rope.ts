/** Rotary positions in GGUF: keys, and per-dimension factors as tensors. */
import { refuseGguf } from "../refusals.js";
import type { GgufValue } from "../writer.js";
import { computeFrequencies, type RopeConfig } from "../../models/decoder/rope.js";

/** The GGUF form of a rotation. */
export interface WrittenRope {
  /** Keys without the architecture's prefix. */
  keys: [string, GgufValue][];
  /** Vectors by tensor name. */
  factors: [string, Float32Array][];
}

/**
 * Converts the rotation of the architecture `name`, over `headDim` dimensions. Throws `ERR_OPTION` for one that
 * llama.cpp does not read.
 */
export function convertRope(
  file: string,
  name: string,
  rope: RopeConfig,
  { headDim, positions }: { headDim: number; positions: number },
): WrittenRope {
  const { theta, scaling, partial = 1 } = rope;
  const keys: [string, GgufValue][] = [
    ["rope.dimension_count", { u32: Math.trunc(headDim * partial) }],
    ["rope.freq_base", { f32: theta }],
  ];
  const original = (length: number): [string, GgufValue] => [
    "rope.scaling.original_context_length",
    { u32: length },
  ];
  const unread = (): never => refuseGguf("rope", file, `rope scaling ${scaling.type} of ${name}`);
  if (name === "phi3") {
    if (scaling.type !== "longrope") return { keys: [...keys, original(positions)], factors: [] };
    const { originalMaxPositionEmbeddings, attentionFactor, longFactor, shortFactor } = scaling;
    keys.push(original(originalMaxPositionEmbeddings));
    keys.push(["rope.scaling.attn_factor", { f32: attentionFactor }]);
    return {
      keys,
      factors: [
        ["rope_factors_long.weight", Float32Array.from(longFactor)],
        ["rope_factors_short.weight", Float32Array.from(shortFactor)],
      ],
    };
  }
  // Dynamic scaling only affects texts beyond the model's longest.
  if (scaling.type === "default" || scaling.type === "dynamic") return { keys, factors: [] };
  if (scaling.type === "linear") {
    keys.push(["rope.scaling.type", { text: "linear" }], ["rope.scaling.factor", { f32: scaling.factor }]);
    return { keys, factors: [] };
  }
  if (scaling.type === "llama3") {
    if (name !== "llama") return unread();
    const plain = computeFrequencies({ headDim, rope: { theta, scaling: { type: "default" } } });
    const scaled = computeFrequencies({ headDim, rope });
    const factors = Float32Array.from(plain, (frequency, i) => frequency / (scaled[i] as number));
    return { keys, factors: [["rope_freqs.weight", factors]] };
  }
  if (scaling.type !== "yarn" || name === "gemma3") return unread();
  const { factor, betaFast, betaSlow, truncate, attentionFactor } = scaling;
  if (betaFast !== 32 || betaSlow !== 1 || !truncate)
    refuseGguf(
      "rope",
      file,
      `yarn with beta_fast ${betaFast}, beta_slow ${betaSlow} and truncate ${truncate}`,
    );
  keys.push(["rope.scaling.type", { text: "yarn" }], ["rope.scaling.factor", { f32: factor }]);
  keys.push(original(scaling.originalMaxPositionEmbeddings));
  // llama.cpp already multiplies cos and sin by the paper's factor.
  const amplitude = factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1;
  if (Math.abs(attentionFactor / amplitude - 1) > 1e-9)
    keys.push(["rope.scaling.attn_factor", { f32: attentionFactor / amplitude }]);
  return { keys, factors: [] };
}
