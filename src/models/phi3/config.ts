/** The configuration of Phi-3 and Phi-4. */
import { LowrankError } from "../../errors.js";
import { ConfigFields } from "../config-fields.js";
import {
  checkCount,
  writeSpecialIds,
  LIMIT,
  readProbability,
  refuseQuantised,
  readSpecialIds,
  readWeightsConfig,
} from "../config-parts.js";
import {
  countDecoderValues,
  writeSizes,
  readKeyValueHeads,
  type DecoderConfig,
  type DecoderConfigFields,
} from "../decoder/config.js";
import { writeRope, computeLongRopeFactor, type RopeConfig } from "../decoder/rope.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { createRefusal } from "../../refusals/refusal.js";

/** The fields of `config.json`, in camel case. */
export interface Phi3Config extends DecoderConfig {
  /** The family: `model_type`. */
  modelType: "phi3";
  /** The sliding window: keys per query, its own included; undefined for no limit. */
  slidingWindow: number | undefined;
  /** Dropout before residual sums. */
  residPdrop: number;
}

/** `Phi3Config` of transformers: the supported fields of `config.json`. */
export interface Phi3ConfigFields extends DecoderConfigFields {
  /** Rows of the input embedding; 32,064 by default. */
  vocab_size?: number | undefined;
  /** By default the number of heads. */
  num_key_value_heads?: number | null | undefined;
  /** silu or its alias swish. */
  hidden_act?: string | undefined;
  /** 4096 by default. */
  max_position_embeddings?: number | undefined;
  /** The longest text of pretraining; 4096 by default. */
  original_max_position_embeddings?: number | undefined;
  /** 1e-5 by default. */
  rms_norm_eps?: number | undefined;
  /** False by default. */
  tie_word_embeddings?: boolean | undefined;
  /** 10,000 by default. */
  rope_theta?: number | undefined;
  /** The share of a head's dimensions that is rotated; 1 by default. */
  partial_rotary_factor?: number | undefined;
  /** `type` longrope (or su), with `short_factor` and `long_factor`. */
  rope_scaling?: Readonly<Record<string, unknown>> | null | undefined;
  /**
   * The format of transformers 5: `rope_theta`, `partial_rotary_factor` and the contents of `rope_scaling` in one
   * object.
   */
  rope_parameters?: Readonly<Record<string, unknown>> | null | undefined;
  /** Dropout before residual sums; 0 by default. */
  resid_pdrop?: number | undefined;
  /** Accepted and not applied, as in transformers. */
  embd_pdrop?: number | undefined;
  /** The sliding window: keys per query, its own included; no limit by default. */
  sliding_window?: number | null | undefined;
}

function createUnsupported(config: ConfigFields, what: string): LowrankError {
  return new LowrankError("ERR_UNSUPPORTED_MODEL", `${config.file}: ${what}`);
}

function readRotation(config: ConfigFields, headDim: number, positions: number): RopeConfig {
  const fields = config.readObject("rope_scaling") ?? config.readObject("rope_parameters");
  const theta = fields?.readPositive("rope_theta") ?? config.readPositive("rope_theta") ?? 10_000;
  const partial =
    fields?.readPositive("partial_rotary_factor") ?? config.readPositive("partial_rotary_factor") ?? 1;
  const dims = Math.trunc(headDim * partial);
  if (partial > 1 || dims < 2 || dims % 2 !== 0) {
    const problem = `leaves ${dims} of ${headDim} dimensions to turn, which have to be even`;
    throw config.createFailure(`partial_rotary_factor ${partial} ${problem}`);
  }
  const original = config.readSize("original_max_position_embeddings", LIMIT.positions) ?? 4096;
  const type = fields?.readString("rope_type") ?? fields?.readString("type") ?? "default";
  if (fields === undefined || type === "default") return { theta, partial, scaling: { type: "default" } };
  // su and yarn are names of LongRoPE in older files.
  if (!["longrope", "su", "yarn"].includes(type))
    throw createRefusal(MODEL_REFUSALS.phiScaling, config.file, `"${type}"`, "ERR_UNSUPPORTED_MODEL");
  const scaling = {
    type: "longrope" as const,
    shortFactor: fields.readPositives("short_factor", dims / 2),
    longFactor: fields.readPositives("long_factor", dims / 2),
    originalMaxPositionEmbeddings: original,
    attentionFactor:
      fields.readPositive("attention_factor") ??
      computeLongRopeFactor(fields.readPositive("factor") ?? positions / original, original),
  };
  return { theta, partial, scaling };
}

/**
 * Reads a parsed `config.json` and, where there is one, `generation_config.json`, whose end tokens take precedence.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported feature; `ERR_FILE_FORMAT` for a missing or invalid value.
 */
export function readPhi3Config(config: ConfigFields, generation?: ConfigFields): Phi3Config {
  refuseQuantised(config);
  const act = config.readString("hidden_act") ?? "silu";
  if (act !== "silu" && act !== "swish")
    throw createUnsupported(config, `hidden_act "${act}" is not supported; supported is silu`);
  const hiddenSize = config.requireNumber("hidden_size", "size", LIMIT.width);
  const heads = config.requireNumber("num_attention_heads", "size", LIMIT.heads);
  if (hiddenSize % heads !== 0)
    throw config.createError("num_attention_heads", `must divide hidden_size (${hiddenSize})`);
  const positions = config.readSize("max_position_embeddings", LIMIT.positions) ?? 4096;
  const headDim = hiddenSize / heads;
  const result: Phi3Config = {
    modelType: "phi3",
    vocabSize: config.readSize("vocab_size", LIMIT.vocabulary) ?? 32_064,
    hiddenSize,
    intermediateSize: config.requireNumber("intermediate_size", "size", 4 * LIMIT.width),
    numHiddenLayers: config.requireNumber("num_hidden_layers", "size", LIMIT.layers),
    numAttentionHeads: heads,
    numKeyValueHeads: readKeyValueHeads(config, heads),
    attentionDropout: readProbability(config, "attention_dropout", 0),
    headDim,
    maxPositionEmbeddings: positions,
    rmsNormEps: config.readPositive("rms_norm_eps") ?? 1e-5,
    slidingWindow: config.readSize("sliding_window", LIMIT.positions),
    residPdrop: readProbability(config, "resid_pdrop", 0),
    tieWordEmbeddings: config.readBoolean("tie_word_embeddings") ?? false,
    rope: readRotation(config, headDim, positions),
    ...readSpecialIds(config, generation),
    ...readWeightsConfig(config),
  };
  config.readValue("embd_pdrop");
  checkCount(config, countDecoderValues(result));
  return result;
}

/** Returns the configuration as a `config.json` for any transformers with this family, and for `readPhi3Config`. */
export function writePhi3Config(config: Phi3Config): Record<string, unknown> {
  return {
    architectures: ["Phi3ForCausalLM"],
    ...writeSizes(config),
    hidden_act: "silu",
    resid_pdrop: config.residPdrop,
    sliding_window: config.slidingWindow ?? null,
    partial_rotary_factor: config.rope.partial ?? 1,
    ...writeRope(config.rope),
    ...writeSpecialIds(config),
  };
}
