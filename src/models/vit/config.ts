/** The configuration of ViT. */
import { activationField, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import type { CommonConfigFields, LabelConfigFields } from "../from-config.js";
import {
  blockValues,
  checkCount,
  hubBlocks,
  hubWeights,
  LIMIT,
  probability,
  refuseQuantised,
  weightsConfig,
  type BlocksConfig,
} from "../config-parts.js";
import { hubLabels, labelConfig, type LabelConfig } from "../labels.js";

/** Height and width. */
type Size = readonly [number, number];

/** What `config.json` says, in one spelling. */
export interface ViTConfig extends BlocksConfig, LabelConfig {
  /** The family, as `model_type` names it. */
  modelType: "vit";
  /** Added to the variance in norms. */
  layerNormEps: number;
  /** What each MLP applies. */
  activation: ActivationName;
  /** Dropout of the embeddings, and of what a block adds. */
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

/** `ViTConfig` of transformers: the fields of `config.json` that are read, and what they are unless given. */
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
  /** Dropout of the attention's weights; 0. */
  attention_probs_dropout_prob?: number | undefined;
  /** A side, or height and width, in pixels: 224. */
  image_size?: number | readonly [number, number] | undefined;
  /** A side, or height and width, in pixels: 16. */
  patch_size?: number | readonly [number, number] | undefined;
  /** 3. */
  num_channels?: number | undefined;
  /** True. */
  qkv_bias?: boolean | undefined;
}

/** A number of pixels, or a height and a width. */
function sizeField(config: ConfigFields, key: string, otherwise: number): Size {
  const value = config.value(key) ?? otherwise;
  const sides: unknown[] = Array.isArray(value) ? value : [value, value];
  const real = (side: unknown): boolean => Number.isInteger(side) && (side as number) > 0;
  if (sides.length !== 2 || !sides.every((side) => real(side) && (side as number) <= LIMIT.width))
    throw config.error(key, `must be an integer from 1 to ${LIMIT.width}, or two of them`);
  return sides as unknown as Size;
}

/**
 * Reads a parsed `config.json`; `numLabels` goes before the classes that it names.
 *
 * Errors: `ERR_UNSUPPORTED_MODEL` for a feature that is not built; `ERR_FILE_FORMAT` for a missing
 * or senseless value.
 */
export function vitConfig(json: Record<string, unknown> | ConfigFields, numLabels?: number): ViTConfig {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  refuseQuantised(config);
  const hiddenSize = config.size("hidden_size", LIMIT.width) ?? 768;
  const heads = config.size("num_attention_heads", LIMIT.heads) ?? 12;
  if (hiddenSize % heads !== 0)
    throw config.error("num_attention_heads", `must divide hidden_size (${hiddenSize})`);
  const [imageSize, patchSize] = [sizeField(config, "image_size", 224), sizeField(config, "patch_size", 16)];
  if (imageSize.some((side, i) => side < (patchSize[i] as number)))
    throw config.error("patch_size", `must be at most image_size (${imageSize.join(" × ")})`);
  const result: ViTConfig = {
    modelType: "vit",
    hiddenSize,
    intermediateSize: config.size("intermediate_size", 4 * LIMIT.width) ?? 3072,
    numHiddenLayers: config.size("num_hidden_layers", LIMIT.layers) ?? 12,
    numAttentionHeads: heads,
    layerNormEps: config.positive("layer_norm_eps") ?? 1e-12,
    activation: activationField(config, "hidden_act", "gelu"),
    hiddenDropout: probability(config, "hidden_dropout_prob", 0),
    attentionDropout: probability(config, "attention_probs_dropout_prob", 0),
    imageSize,
    patchSize,
    numChannels: config.size("num_channels", LIMIT.width) ?? 3,
    qkvBias: config.boolean("qkv_bias") ?? true,
    ...labelConfig(config, numLabels),
    ...weightsConfig(config),
  };
  const embeddings = patchCount(result) + result.numChannels * patchSize[0] * patchSize[1];
  checkCount(config, embeddings * hiddenSize + blockValues(result));
  return result;
}

/** Patches of an image; what is left at its edges counts for nothing. */
export function patchCount({ imageSize, patchSize }: Pick<ViTConfig, "imageSize" | "patchSize">): number {
  return Math.floor(imageSize[0] / patchSize[0]) * Math.floor(imageSize[1] / patchSize[1]);
}

/** The configuration as a `config.json` that every transformers from 4.40 on reads, and `vitConfig` too. */
export function hubConfig(config: ViTConfig): Record<string, unknown> {
  const side = ([height, width]: Size): number | number[] => (height === width ? height : [height, width]);
  return {
    model_type: "vit",
    ...hubBlocks(config),
    layer_norm_eps: config.layerNormEps,
    hidden_act: config.activation,
    hidden_dropout_prob: config.hiddenDropout,
    attention_probs_dropout_prob: config.attentionDropout,
    image_size: side(config.imageSize),
    patch_size: side(config.patchSize),
    num_channels: config.numChannels,
    qkv_bias: config.qkvBias,
    ...hubLabels(config),
    ...hubWeights(config),
  };
}
