/** Frequencies of rotary position embedding, with the scalings that the Llama family uses. */
import type { ConfigFields } from "../config-fields.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { createRefusal } from "../../refusals/refusal.js";

/** The scaling of frequencies for texts longer than in pretraining: `rope_type` and its parameters. */
export type RopeScaling =
  | {
      /** No scaling. */
      type: "default";
    }
  | {
      /** Divides all frequencies by the same factor. */
      type: "linear";
      /** The divisor. */
      factor: number;
    }
  | {
      /** Llama 3: divides low frequencies by the factor, keeps high ones, and blends in between. */
      type: "llama3";
      /** The divisor of low frequencies. */
      factor: number;
      /** Wavelengths above the longest text of pretraining divided by this are fully scaled. */
      lowFreqFactor: number;
      /** Wavelengths below the longest text of pretraining divided by this are kept. */
      highFreqFactor: number;
      /** The longest text of pretraining. */
      originalMaxPositionEmbeddings: number;
    }
  | {
      /**
       * Dynamic NTK. It affects only texts beyond the model's longest, which are rejected, so it has no effect here.
       */
      type: "dynamic";
      /** The growth factor of the base. */
      factor: number;
    }
  | {
      /** YaRN (Peng et al. 2023): keeps dimensions that rotate often, fully scales those that rotate rarely. */
      type: "yarn";
      /** The divisor of the fully scaled dimensions. */
      factor: number;
      /** Dimensions that rotate more often than this over the longest text of pretraining are kept. */
      betaFast: number;
      /** Dimensions that rotate less often than this are fully scaled. */
      betaSlow: number;
      /** Whether the bounds between them are rounded to whole dimensions. */
      truncate: boolean;
      /** The longest text of pretraining. */
      originalMaxPositionEmbeddings: number;
      /** The factor of cos and sin. */
      attentionFactor: number;
    }
  | {
      /** LongRoPE (Ding et al. 2024): divides each dimension by a separate factor, with another set for long texts. */
      type: "longrope";
      /** The divisors in texts up to the longest of pretraining. */
      shortFactor: readonly number[];
      /** The divisors in longer texts. */
      longFactor: readonly number[];
      /** The longest text of pretraining. */
      originalMaxPositionEmbeddings: number;
      /** The factor of cos and sin. */
      attentionFactor: number;
    };

/** Rotary position embedding. */
export interface RopeConfig {
  /** The base of the frequencies. */
  theta: number;
  /** Their scaling. */
  scaling: RopeScaling;
  /** The share of a head's dimensions that is rotated, starting with the first; 1 by default. */
  partial?: number | undefined;
}

const DEFAULT_THETA = 10_000;

/**
 * Reads the rotation in either format: `rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling`, whose
 * type is `rope_type` or, in older files, `type`. A value inside the object takes precedence over the top-level one, as
 * in transformers.
 */
export function readRopeConfig(config: ConfigFields, maxPositionEmbeddings: number): RopeConfig {
  // transformers prefers rope_scaling where a file has both.
  const fields = config.readObject("rope_scaling") ?? config.readObject("rope_parameters");
  const theta = fields?.readPositive("rope_theta") ?? config.readPositive("rope_theta") ?? DEFAULT_THETA;
  const partial =
    fields?.readPositive("partial_rotary_factor") ?? config.readPositive("partial_rotary_factor") ?? 1;
  if (partial !== 1)
    throw createRefusal(MODEL_REFUSALS.partialRotary, config.file, String(partial), "ERR_UNSUPPORTED_MODEL");
  const type = fields?.readString("rope_type") ?? fields?.readString("type") ?? "default";
  if (fields === undefined || type === "default") return { theta, scaling: { type: "default" } };
  if (type === "linear" || type === "dynamic")
    return { theta, scaling: { type, factor: fields.requireNumber("factor", "positive") } };
  const original =
    config.readPositive("original_max_position_embeddings") ??
    fields.readPositive("original_max_position_embeddings") ??
    maxPositionEmbeddings;
  if (type === "llama3") return { theta, scaling: readLlama3(fields, original) };
  if (type === "yarn") return { theta, scaling: readYarn(fields, original, maxPositionEmbeddings) };
  if (type === "longrope") return { theta, scaling: readLongRope(fields, original, maxPositionEmbeddings) };
  throw createRefusal(MODEL_REFUSALS.ropeScaling, config.file, `"${type}"`, "ERR_UNSUPPORTED_MODEL");
}

function readLlama3(fields: ConfigFields, originalMaxPositionEmbeddings: number): RopeScaling {
  const scaling = {
    type: "llama3" as const,
    factor: fields.requireNumber("factor", "positive"),
    lowFreqFactor: fields.requireNumber("low_freq_factor", "positive"),
    highFreqFactor: fields.requireNumber("high_freq_factor", "positive"),
    originalMaxPositionEmbeddings,
  };
  if (scaling.highFreqFactor <= scaling.lowFreqFactor) {
    throw fields.createError(
      "high_freq_factor",
      `must be larger than low_freq_factor (${scaling.lowFreqFactor})`,
    );
  }
  return scaling;
}

function readLongRope(fields: ConfigFields, original: number, longest: number): RopeScaling {
  const readFactors = (key: string): number[] => {
    const value = fields.readValue(key);
    return fields.readPositives(key, Array.isArray(value) ? value.length : 0);
  };
  return {
    type: "longrope",
    shortFactor: readFactors("short_factor"),
    longFactor: readFactors("long_factor"),
    originalMaxPositionEmbeddings: original,
    attentionFactor:
      fields.readPositive("attention_factor") ??
      computeLongRopeFactor(fields.readPositive("factor") ?? longest / original, original),
  };
}

/** Checks that LongRoPE has one factor per pair of dimensions. Throws `ERR_FILE_FORMAT`. */
export function checkFactors(config: ConfigFields, { scaling }: RopeConfig, headDim: number): void {
  if (scaling.type !== "longrope") return;
  for (const { length } of [scaling.shortFactor, scaling.longFactor]) {
    if (length === headDim / 2) continue;
    throw config.createFailure(
      `longrope has ${length} factors, and heads of ${headDim} dimensions take ${headDim / 2}`,
    );
  }
}

function readYarn(fields: ConfigFields, originalMaxPositionEmbeddings: number, longest: number): RopeScaling {
  const factor = fields.readPositive("factor") ?? longest / originalMaxPositionEmbeddings;
  const scaling = {
    type: "yarn" as const,
    factor,
    betaFast: fields.readPositive("beta_fast") ?? 32,
    betaSlow: fields.readPositive("beta_slow") ?? 1,
    truncate: fields.readBoolean("truncate") ?? true,
    originalMaxPositionEmbeddings,
    attentionFactor: fields.readPositive("attention_factor") ?? readYarnFactor(fields, factor),
  };
  if (scaling.betaFast <= scaling.betaSlow)
    throw fields.createError("beta_fast", `must be larger than beta_slow (${scaling.betaSlow})`);
  return scaling;
}

/**
 * Returns YaRN's attention factor, 0.1 ln(factor) + 1, or the quotient of two such terms with `mscale` and
 * `mscale_all_dim`.
 */
function readYarnFactor(fields: ConfigFields, factor: number): number {
  const [numerator, denominator] = [fields.readPositive("mscale"), fields.readPositive("mscale_all_dim")];
  const computeScale = (scale: number): number => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);
  return numerator !== undefined && denominator !== undefined
    ? computeScale(numerator) / computeScale(denominator)
    : computeScale(1);
}

/** Returns the rotation in the older format, which every transformers reads. */
export function writeRope({ theta, scaling }: RopeConfig): Record<string, unknown> {
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

/** Returns LongRoPE's factor of cos and sin, where the file has none. */
export function computeLongRopeFactor(factor: number, original: number): number {
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
}

/** Returns the text length above which other frequencies apply; Infinity without LongRoPE. */
export function findTurningPoint({ scaling }: RopeConfig): number {
  return scaling.type === "longrope" ? scaling.originalMaxPositionEmbeddings : Infinity;
}

/**
 * Returns the frequencies of a text of `length` tokens, in radians per position, one per pair of rotated dimensions, in
 * f64: θ^(−2i/D), then scaled.
 *
 * `llama3` (Llama 3.1): a wavelength below original / high is kept, above original / low is divided by the factor, and
 * blended in between. `yarn`: the same by dimension; the bounds are the dimensions that rotate `betaFast` and
 * `betaSlow` times over the original length. Source: transformers' modeling_rope_utils.
 */
export function computeFrequencies(
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
  if (scaling.type === "yarn") return computeYarnFrequencies(frequencies, rope.theta, scaling);
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

function computeYarnFrequencies(
  frequencies: Float64Array,
  theta: number,
  scaling: Extract<RopeScaling, { type: "yarn" }>,
): Float64Array {
  const { factor, betaFast, betaSlow, truncate, originalMaxPositionEmbeddings: original } = scaling;
  const D = 2 * frequencies.length;
  /** The dimension that rotates this many times over the original length. */
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

/** Returns the factor of cos and sin. */
export function computeAmplitude({ scaling }: RopeConfig): number {
  return "attentionFactor" in scaling ? scaling.attentionFactor : 1;
}
