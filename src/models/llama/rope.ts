/** Frequencies of rotary position embedding, with the scalings that the Llama family uses. */
import { LowrankError } from "../../errors.js";
import type { ConfigFields } from "../config-fields.js";

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
    };

/** Rotary position embedding. */
export interface RopeConfig {
  /** The base of the frequencies. */
  theta: number;
  /** How they are stretched. */
  scaling: RopeScaling;
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
  if (partial !== 1) throw unsupported(config, `partial_rotary_factor ${partial}`);
  const type = fields?.string("rope_type") ?? fields?.string("type") ?? "default";
  if (fields === undefined || type === "default") return { theta, scaling: { type: "default" } };
  if (type === "linear") return { theta, scaling: { type, factor: fields.required("factor", "positive") } };
  if (type !== "llama3") throw unsupported(config, `rope scaling "${type}"`);
  const scaling = {
    type: "llama3" as const,
    factor: fields.required("factor", "positive"),
    lowFreqFactor: fields.required("low_freq_factor", "positive"),
    highFreqFactor: fields.required("high_freq_factor", "positive"),
    originalMaxPositionEmbeddings:
      config.positive("original_max_position_embeddings") ??
      fields.positive("original_max_position_embeddings") ??
      maxPositionEmbeddings,
  };
  if (scaling.highFreqFactor <= scaling.lowFreqFactor) {
    throw fields.error("high_freq_factor", `must be larger than low_freq_factor (${scaling.lowFreqFactor})`);
  }
  return { theta, scaling };
}

function unsupported(config: ConfigFields, what: string): LowrankError {
  const supported = "supported are the types default, linear and llama3 over whole heads";
  return new LowrankError("ERR_UNSUPPORTED_MODEL", `${config.file}: ${what} is not supported; ${supported}`);
}

/** In the older spelling, which every transformers reads. */
export function hubRope({ theta, scaling }: RopeConfig): Record<string, unknown> {
  if (scaling.type === "default") return { rope_theta: theta, rope_scaling: null };
  const rope_scaling: Record<string, unknown> = { rope_type: scaling.type, factor: scaling.factor };
  if (scaling.type === "llama3") {
    rope_scaling["low_freq_factor"] = scaling.lowFreqFactor;
    rope_scaling["high_freq_factor"] = scaling.highFreqFactor;
    rope_scaling["original_max_position_embeddings"] = scaling.originalMaxPositionEmbeddings;
  }
  return { rope_theta: theta, rope_scaling };
}

/**
 * Radians a position for each pair of a head's dimensions, in f64: θ^(−2i/D), then scaled.
 *
 * `llama3` (Llama 3.1): a wavelength below original / high is kept, above original / low is divided by the factor,
 * and between the two is blended. Source: transformers' modeling_rope_utils.
 */
export function ropeFrequencies({ headDim, rope }: { headDim: number; rope: RopeConfig }): Float64Array {
  const frequencies = Float64Array.from(
    { length: headDim / 2 },
    (_, i) => rope.theta ** (-(2 * i) / headDim),
  );
  const { scaling } = rope;
  if (scaling.type === "default") return frequencies;
  if (scaling.type === "linear") return frequencies.map((frequency) => frequency / scaling.factor);
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
