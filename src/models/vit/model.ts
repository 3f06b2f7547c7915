/** ViT for image classification. Parameter paths match transformers 5; files keep the older names. */
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { Classifier, takeFirstToken } from "../classifier.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import { runBlocks, type ForwardOptions } from "../pretrained.js";
import { normaliseEnd, runBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import { ViTLayer } from "./block.js";
import { writeViTConfig, readViTConfig, type ViTConfig, type ViTConfigFields } from "./config.js";
import { ViTEmbeddings } from "./embeddings.js";

/** ViT without its head. */
export class ViTModel extends Module {
  /** The class token and the patches. */
  embeddings: ViTEmbeddings;
  /** The blocks, from first to last. */
  layers: ViTLayer[];
  /** The norm after the last block. */
  layernorm: LayerNorm;

  /** @internal */
  constructor(config: ViTConfig, path: string, weights: Weights) {
    super();
    this.embeddings = new ViTEmbeddings(config, `${path}.embeddings`, weights);
    this.layers = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => new ViTLayer(config, `${path}.layers.${i}`, weights),
    );
    this.layernorm = weights.layerNorm(`${path}.layernorm`, config.hiddenSize, config.layerNormEps);
  }

  /** Maps pixels f32 [B, channels, height, width] to [B, 1 + patches, C]. */
  forward(pixels: Tensor, checkpointed: boolean, states?: Tensor[]): Tensor {
    const x = this.embeddings.forward(pixels);
    const run = (layer: ViTLayer, y: Stream): Stream => runBlock(layer, y);
    return normaliseEnd(this.layernorm, runBlocks(this.layers, x, checkpointed, run, states));
  }
}

/**
 * ViT with a classifier over its first token. Submodules and `stateDict` keys have the names of transformers 5; files
 * have the older names.
 */
export class ViTForImageClassification extends Classifier {
  /** The fields of `config.json`, in camel case. */
  readonly config: ViTConfig & Record<string, unknown>;
  /** The class name in transformers. */
  readonly architecture = "ViTForImageClassification";
  /** PEFT has no name for the task. */
  readonly taskType = undefined;
  /** Everything but the head. */
  vit: ViTModel;
  /** The classifier over the first token, [C] → [N]. */
  classifier: Linear;

  /** @internal */
  constructor(config: ViTConfig, weights: Weights) {
    super(weights);
    this.config = config as ViTConfig & Record<string, unknown>;
    this.vit = new ViTModel(config, "vit", weights);
    this.classifier = weights.linear("classifier", config.hiddenSize, config.labels.length, true);
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), norms 1, biases 0. Reproducible with `manualSeed`. The model is in training mode, and all
   * weights require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: ViTConfigFields, options?: FromConfigOptions): ViTForImageClassification {
    return buildFromConfig("ViTForImageClassification.fromConfig", config, options, {
      modelTypes: ["vit"],
      read: readViTConfig,
      make: (settled, weights) => new ViTForImageClassification(settled, weights),
    });
  }

  /** The device of the weights: `cpu`, `gpu:0`. */
  get device() {
    return this.classifier.weight.device;
  }

  /** @internal Maps pixels f32 [B, channels, height, width] to [B, 1 + patches, C]. */
  computeHidden(pixels: Tensor, _: ForwardOptions = {}, states?: Tensor[]): Tensor {
    return this.vit.forward(pixels, this.gradientCheckpointing && isTraining(this), states);
  }

  /** @internal Maps hidden [B, T, C] to logits [B, N]. */
  computeLogits(hidden: Tensor): Tensor {
    return this.classifier.forward(takeFirstToken(hidden));
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return { ...writeViTConfig(this.config), ...this.listConfigChanges() };
  }

  /** @internal Returns the name of a tensor in a file, from its name in the state dict. */
  override toFileName(name: string): string {
    return convertToFileName(name);
  }
}

const FILE_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^(vit\.)?layers\./, "$1encoder.layer."],
  [/\.attention\.q_proj\./, ".attention.attention.query."],
  [/\.attention\.k_proj\./, ".attention.attention.key."],
  [/\.attention\.v_proj\./, ".attention.attention.value."],
  [/\.attention\.o_proj\./, ".attention.output.dense."],
  [/\.mlp\.fc1\./, ".intermediate.dense."],
  [/\.mlp\.fc2\./, ".output.dense."],
];

/** Returns the name in files, which transformers 4 also used in memory. */
export function convertToFileName(name: string): string {
  return FILE_NAMES.reduce((renamed, [pattern, to]) => renamed.replace(pattern, to), name);
}
