/** Frequencies of rotary position embedding, with the scalings that the Llama family uses. */
import type { ConfigFields } from "../config-fields.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { refused } from "../../refusals/refusal.js";

/** How frequencies are stretched for texts longer than those of pretraining: `rope_type` and its parameters. */
export type RopeScaling =
  | {
      /** They are not. */
      type: "default";
    }
  | {
      /** All by the same factor. */
      type: "linear";
      /** What positions are divided by. */
      factor: number;
    }
  | {
      /** Llama 3's: low frequencies by the factor, high ones not, those between in part. */
      type: "llama3";
      /** What low frequencies are divided by. */
      factor: number;
      /** Wavelengths above the longest text of pretraining over this are stretched whole. */
      lowFreqFactor: number;
      /** Wavelengths below the longest text of pretraining over this are left alone. */
      highFreqFactor: number;
      /** The longest text of pretraining. */
      originalMaxPositionEmbeddings: number;
    }
  | {
      /** By the length of a text beyond the model's longest, which is not taken here: up to there not at all. */
      type: "dynamic";
      /** What the base grows by there. */
      factor: number;
    }
  | {
      /** YaRN's (Peng et al. 2023): dimensions that turn often are left alone, those that turn seldom stretched whole. */
      type: "yarn";
      /** What the seldom turning dimensions are divided by. */
      factor: number;
      /** Dimensions that turn more often than this over the longest text of pretraining are left alone. */
      betaFast: number;
      /** Dimensions that turn less often than this are stretched whole. */
      betaSlow: number;
      /** Whether the bounds between them are whole dimensions. */
      truncate: boolean;
      /** The longest text of pretraining. */
      originalMaxPositionEmbeddings: number;
      /** What cos and sin are multiplied by. */
      attentionFactor: number;
    }
  | {
      /** LongRoPE's (Ding et al. 2024): each dimension by a factor of its own, by another in longer texts. */
      type: "longrope";
      /** In texts up to the longest of pretraining. */
      shortFactor: readonly number[];
      /** In longer ones. */
      longFactor: readonly number[];
      /** The longest text of pretraining. */
      originalMaxPositionEmbeddings: number;
      /** What cos and sin are multiplied by. */
      attentionFactor: number;
    };

/** Rotary position embedding. */
export interface RopeConfig {
  /** The base of the frequencies. */
  theta: number;
  /** How they are stretched. */
  scaling: RopeScaling;
  /** The share of a head's dimensions that is turned, the first ones; all unless given. */
  partial?: number | undefined;
}

const DEFAULT_THETA = 10_000;

/**
 * Reads either spelling: `rope_parameters` of transformers 5, or `rope_theta` beside `rope_scaling`, whose kind is
 * `rope_type` or, older, `type`. A value in the dictionary goes before one beside it, as in transformers.
 */
export function ropeConfig(config: ConfigFields, maxPositionEmbeddings: number): RopeConfig {
  // transformers takes rope_scaling before rope_parameters where a file has both.
  const fields = config.object("rope_scaling") ?? config.object("rope_parameters");
  const theta = fields?.positive("rope_theta") ?? config.positive("rope_theta") ?? DEFAULT_THETA;
  const partial = fields?.positive("partial_rotary_factor") ?? config.positive("partial_rotary_factor") ?? 1;
  if (partial !== 1)
    throw refused(MODEL_REFUSALS.partialRotary, config.file, String(partial), "ERR_UNSUPPORTED_MODEL");
  const type = fields?.string("rope_type") ?? fields?.string("type") ?? "default";
  if (fields === undefined || type === "default") return { theta, scaling: { type: "default" } };
  if (type === "linear" || type === "dynamic")
    return { theta, scaling: { type, factor: fields.required("factor", "positive") } };
  const original =
    config.positive("original_max_position_embeddings") ??
    fields.positive("original_max_position_embeddings") ??
    maxPositionEmbeddings;
  if (type === "llama3") return { theta, scaling: llama3(fields, original) };
  if (type === "yarn") return { theta, scaling: yarn(fields, original, maxPositionEmbeddings) };
  if (type === "longrope") return { theta, scaling: longRope(fields, original, maxPositionEmbeddings) };
  throw refused(MODEL_REFUSALS.ropeScaling, config.file, `"${type}"`, "ERR_UNSUPPORTED_MODEL");
}

function llama3(fields: ConfigFields, originalMaxPositionEmbeddings: number): RopeScaling {
  const scaling = {
    type: "llama3" as const,
    factor: fields.required("factor", "positive"),
    lowFreqFactor: fields.required("low_freq_factor", "positive"),
    highFreqFactor: fields.required("high_freq_factor", "positive"),
    originalMaxPositionEmbeddings,
  };
  if (scaling.highFreqFactor <= scaling.lowFreqFactor) {
    throw fields.error("high_freq_factor", `must be larger than low_freq_factor (${scaling.lowFreqFactor})`);
  }
  return scaling;
}

function longRope(fields: ConfigFields, original: number, longest: number): RopeScaling {
  const factors = (key: string): number[] => {
    const value = fields.value(key);
    return fields.positives(key, Array.isArray(value) ? value.length : 0);
  };
  return {
    type: "longrope",
    shortFactor: factors("short_factor"),
    longFactor: factors("long_factor"),
    originalMaxPositionEmbeddings: original,
    attentionFactor:
      fields.positive("attention_factor") ??
      longRopeFactor(fields.positive("factor") ?? longest / original, original),
  };
}

/** LongRoPE has a factor for each pair of dimensions. Throws `ERR_FILE_FORMAT` for another number of them. */
export function checkFactors(config: ConfigFields, { scaling }: RopeConfig, headDim: number): void {
  if (scaling.type !== "longrope") return;
  for (const { length } of [scaling.shortFactor, scaling.longFactor]) {
    if (length === headDim / 2) continue;
    throw config.failure(
      `longrope has ${length} factors, and heads of ${headDim} dimensions take ${headDim / 2}`,
    );
  }
}

function yarn(fields: ConfigFields, originalMaxPositionEmbeddings: number, longest: number): RopeScaling {
  const factor = fields.positive("factor") ?? longest / originalMaxPositionEmbeddings;
  const scaling = {
    type: "yarn" as const,
    factor,
    betaFast: fields.positive("beta_fast") ?? 32,
    betaSlow: fields.positive("beta_slow") ?? 1,
    truncate: fields.boolean("truncate") ?? true,
    originalMaxPositionEmbeddings,
    attentionFactor: fields.positive("attention_factor") ?? yarnFactor(fields, factor),
  };
  if (scaling.betaFast <= scaling.betaSlow)
    throw fields.error("beta_fast", `must be larger than beta_slow (${scaling.betaSlow})`);
  return scaling;
}

/** 0.1 ln(factor) + 1, or the quotient of two such. */
function yarnFactor(fields: ConfigFields, factor: number): number {
  const [numerator, denominator] = [fields.positive("mscale"), fields.positive("mscale_all_dim")];
  const of = (scale: number): number => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);
  return numerator !== undefined && denominator !== undefined ? of(numerator) / of(denominator) : of(1);
}

/** In the older spelling, which every transformers reads. */
export function hubRope({ theta, scaling }: RopeConfig): Record<string, unknown> {
  if (scaling.type === "default") return { rope_theta: theta, rope_scaling: null };
  if (scaling.type === "longrope") {
    const { shortFactor: short_factor, longFactor: long_factor, attentionFactor: attention_factor } = scaling;
    return {
      rope_theta: theta,
      rope_scaling: { rope_type: "longrope", short_factor, long_factor, attention_factor },
      original_max_position_embeddings: scaling.originalMaxPositionEmbeddings,
    };
  }
  const rope_scaling: Record<string, unknown> = { rope_type: scaling.type, factor: scaling.factor };
  if (scaling.type === "llama3") {
    rope_scaling["low_freq_factor"] = scaling.lowFreqFactor;
    rope_scaling["high_freq_factor"] = scaling.highFreqFactor;
  }
  if (scaling.type === "yarn") {
    rope_scaling["beta_fast"] = scaling.betaFast;
    rope_scaling["beta_slow"] = scaling.betaSlow;
    rope_scaling["attention_factor"] = scaling.attentionFactor;
    if (!scaling.truncate) rope_scaling["truncate"] = false;
  }
  if (scaling.type === "llama3" || scaling.type === "yarn")
    rope_scaling["original_max_position_embeddings"] = scaling.originalMaxPositionEmbeddings;
  return { rope_theta: theta, rope_scaling };
}

/** What LongRoPE's cos and sin are multiplied by, where the file does not say. */
export function longRopeFactor(factor: number, original: number): number {
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
}

/** The length of a text above which frequencies are others; Infinity where they never are. */
export function ropeTurningPoint({ scaling }: RopeConfig): number {
  return scaling.type === "longrope" ? scaling.originalMaxPositionEmbeddings : Infinity;
}

/**
 * Radians a position for each pair of the dimensions that are turned, in f64: θ^(−2i/D), then scaled; of a text of
 * `length` tokens.
 *
 * `llama3` (Llama 3.1): a wavelength below original / high is kept, above original / low is divided by the factor,
 * and between the two is blended. `yarn`: the same by dimensions, whose bounds are where a dimension turns `betaFast`
 * and `betaSlow` times over the original length. Source: transformers' modeling_rope_utils.
 */
export function ropeFrequencies(
  { headDim, rope }: { headDim: number; rope: RopeConfig },
  length = 0,
): Float64Array {
  const D = Math.trunc(headDim * (rope.partial ?? 1));
  const frequencies = Float64Array.from({ length: D / 2 }, (_, i) => rope.theta ** (-(2 * i) / D));
  const { scaling } = rope;
  if (scaling.type === "default" || scaling.type === "dynamic") return frequencies;
  if (scaling.type === "linear") return frequencies.map((frequency) => frequency / scaling.factor);
  if (scaling.type === "longrope") {
    const factors = length > scaling.originalMaxPositionEmbeddings ? scaling.longFactor : scaling.shortFactor;
    return frequencies.map((frequency, i) => frequency / (factors[i] as number));
  }
  if (scaling.type === "yarn") return yarnFrequencies(frequencies, rope.theta, scaling);
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling;
  return frequencies.map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < originalMaxPositionEmbeddings / highFreqFactor) return frequency;
    if (wavelength > originalMaxPositionEmbeddings / lowFreqFactor) return frequency / factor;
    const turns = originalMaxPositionEmbeddings / wavelength;
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  });
}

function yarnFrequencies(
  frequencies: Float64Array,
  theta: number,
  scaling: Extract<RopeScaling, { type: "yarn" }>,
): Float64Array {
  const { factor, betaFast, betaSlow, truncate, originalMaxPositionEmbeddings: original } = scaling;
  const D = 2 * frequencies.length;
  /** The dimension that turns so often over the original length. */
  const turning = (times: number): number =>
    (D * Math.log(original / (times * 2 * Math.PI))) / (2 * Math.log(theta));
  const [first, last] = [turning(betaFast), turning(betaSlow)];
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  let high = Math.min(truncate ? Math.ceil(last) : last, D - 1);
  if (low === high) high += 0.001;
  return frequencies.map((frequency, i) => {
    const stretched = Math.min(Math.max((i - low) / (high - low), 0), 1);
    return (frequency / factor) * stretched + frequency * (1 - stretched);
  });
}

/** What cos and sin are multiplied by. */
export function ropeAmplitude({ scaling }: RopeConfig): number {
  return "attentionFactor" in scaling ? scaling.attentionFactor : 1;
}
