/** The configuration of ViT. */
import { readActivation, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import type { CommonConfigFields, LabelConfigFields } from "../from-config.js";
import {
  countBlockValues,
  checkCount,
  writeBlocks,
  writeWeightsConfig,
  LIMIT,
  readProbability,
  refuseQuantised,
  readWeightsConfig,
  type BlocksConfig,
} from "../config-parts.js";
import { writeLabels, readLabelConfig, type LabelConfig } from "../labels.js";

/** Height and width. */
type Size = readonly [number, number];

/** The fields of `config.json`, in camel case. */
export interface ViTConfig extends BlocksConfig, LabelConfig {
  /** The family: `model_type`. */
  modelType: "vit";
  /** The epsilon of LayerNorm. */
  layerNormEps: number;
  /** The activation of each MLP. */
  activation: ActivationName;
  /** Dropout of the embeddings and before residual sums. */
  hiddenDropout: number;
  /** Height and width of an image, in pixels. */
  imageSize: readonly [number, number];
  /** Height and width of a patch, in pixels. */
  patchSize: readonly [number, number];
  /** Channels of an image. */
  numChannels: number;
  /** Whether queries, keys and values have biases. */
  qkvBias: boolean;
}

/** `ViTConfig` of transformers: the supported fields of `config.json`, with their defaults. */
export interface ViTConfigFields extends CommonConfigFields, LabelConfigFields {
  /** 768. */
  hidden_size?: number | undefined;
  /** 3072. */
  intermediate_size?: number | undefined;
  /** 12. */
  num_hidden_layers?: number | undefined;
  /** 12. */
  num_attention_heads?: number | undefined;
  /** 1e-12. */
  layer_norm_eps?: number | undefined;
  /** gelu. */
  hidden_act?: string | undefined;
  /** 0. */
  hidden_dropout_prob?: number | undefined;
  /** Dropout of the attention weights; 0. */
  attention_probs_dropout_prob?: number | undefined;
  /** A side, or height and width, in pixels; 224. */
  image_size?: number | readonly [number, number] | undefined;
  /** A side, or height and width, in pixels; 16. */
  patch_size?: number | readonly [number, number] | undefined;
  /** 3. */
  num_channels?: number | undefined;
  /** True. */
  qkv_bias?: boolean | undefined;
}

/** Reads a side, or height and width, in pixels. */
function readSize(config: ConfigFields, key: string, otherwise: number): Size {
  const value = config.readValue(key) ?? otherwise;
  const sides: unknown[] = Array.isArray(value) ? value : [value, value];
  const real = (side: unknown): boolean => Number.isInteger(side) && (side as number) > 0;
  if (sides.length !== 2 || !sides.every((side) => real(side) && (side as number) <= LIMIT.width))
    throw config.createError(key, `must be an integer from 1 to ${LIMIT.width}, or two of them`);
  return sides as unknown as Size;
}

/**
 * Reads a parsed `config.json`; `numLabels` overrides the number of classes in it.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported feature; `ERR_FILE_FORMAT` for a missing
 * or invalid value.
 */
export function readViTConfig(json: Record<string, unknown> | ConfigFields, numLabels?: number): ViTConfig {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  refuseQuantised(config);
  const hiddenSize = config.readSize("hidden_size", LIMIT.width) ?? 768;
  const heads = config.readSize("num_attention_heads", LIMIT.heads) ?? 12;
  if (hiddenSize % heads !== 0)
    throw config.createError("num_attention_heads", `must divide hidden_size (${hiddenSize})`);
  const [imageSize, patchSize] = [readSize(config, "image_size", 224), readSize(config, "patch_size", 16)];
  if (imageSize.some((side, i) => side < (patchSize[i] as number)))
    throw config.createError("patch_size", `must be at most image_size (${imageSize.join(" × ")})`);
  const result: ViTConfig = {
    modelType: "vit",
    hiddenSize,
    intermediateSize: config.readSize("intermediate_size", 4 * LIMIT.width) ?? 3072,
    numHiddenLayers: config.readSize("num_hidden_layers", LIMIT.layers) ?? 12,
    numAttentionHeads: heads,
    layerNormEps: config.readPositive("layer_norm_eps") ?? 1e-12,
    activation: readActivation(config, "hidden_act", "gelu"),
    hiddenDropout: readProbability(config, "hidden_dropout_prob", 0),
    attentionDropout: readProbability(config, "attention_probs_dropout_prob", 0),
    imageSize,
    patchSize,
    numChannels: config.readSize("num_channels", LIMIT.width) ?? 3,
    qkvBias: config.readBoolean("qkv_bias") ?? true,
    ...readLabelConfig(config, numLabels),
    ...readWeightsConfig(config),
  };
  const embeddings = countPatches(result) + result.numChannels * patchSize[0] * patchSize[1];
  checkCount(config, embeddings * hiddenSize + countBlockValues(result));
  return result;
}

/** Counts the patches of an image; incomplete patches at its edges are dropped. */
export function countPatches({ imageSize, patchSize }: Pick<ViTConfig, "imageSize" | "patchSize">): number {
  return Math.floor(imageSize[0] / patchSize[0]) * Math.floor(imageSize[1] / patchSize[1]);
}

/** Returns the configuration as a `config.json` for transformers 4.40 or later, and for `readViTConfig`. */
export function writeViTConfig(config: ViTConfig): Record<string, unknown> {
  const formatSide = ([height, width]: Size): number | number[] =>
    height === width ? height : [height, width];
  return {
    model_type: "vit",
    ...writeBlocks(config),
    layer_norm_eps: config.layerNormEps,
    hidden_act: config.activation,
    hidden_dropout_prob: config.hiddenDropout,
    attention_probs_dropout_prob: config.attentionDropout,
    image_size: formatSide(config.imageSize),
    patch_size: formatSide(config.patchSize),
    num_channels: config.numChannels,
    qkv_bias: config.qkvBias,
    ...writeLabels(config),
    ...writeWeightsConfig(config),
  };
}
