/** ViT for image classification. Paths are those of transformers 5; files keep the older ones. */
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { trains } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { Classifier, firstToken } from "../classifier.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import { chain, type ForwardOptions } from "../pretrained.js";
import { ended, through, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import { ViTLayer } from "./block.js";
import { hubConfig, vitConfig, type ViTConfig, type ViTConfigFields } from "./config.js";
import { ViTEmbeddings } from "./embeddings.js";

/** ViT without its head. */
export class ViTModel extends Module {
  /** The class token and the patches. */
  embeddings: ViTEmbeddings;
  /** The blocks, in order. */
  layers: ViTLayer[];
  /** The norm after the last block. */
  layernorm: LayerNorm;

  /** @internal Built of weights by its model. */
  constructor(config: ViTConfig, path: string, weights: Weights) {
    super();
    this.embeddings = new ViTEmbeddings(config, `${path}.embeddings`, weights);
    this.layers = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => new ViTLayer(config, `${path}.layers.${i}`, weights),
    );
    this.layernorm = weights.layerNorm(`${path}.layernorm`, config.hiddenSize, config.layerNormEps);
  }

  /** pixels f32 [B, channels, height, width] → [B, 1 + patches, C]. */
  forward(pixels: Tensor, checkpointed: boolean, states?: Tensor[]): Tensor {
    const x = this.embeddings.forward(pixels);
    const run = (layer: ViTLayer, y: Stream): Stream => through(layer, y);
    return ended(this.layernorm, chain(this.layers, x, checkpointed, run, states));
  }
}

/**
 * ViT with a classifier over its first token. Submodules and keys of `stateDict` are those of transformers 5; files have
 * the older names.
 */
export class ViTForImageClassification extends Classifier {
  /** What `config.json` says, in one spelling. */
  readonly config: ViTConfig & Record<string, unknown>;
  /** The class as transformers names it. */
  readonly architecture = "ViTForImageClassification";
  /** PEFT has no name for the task. */
  readonly taskType = undefined;
  /** Everything but the head. */
  vit: ViTModel;
  /** [C] → [N], over the first token. */
  classifier: Linear;

  /** @internal */
  constructor(config: ViTConfig, weights: Weights) {
    super(weights);
    this.config = config as ViTConfig & Record<string, unknown>;
    this.vit = new ViTModel(config, "vit", weights);
    this.classifier = weights.linear("classifier", config.hiddenSize, config.labels.length, true);
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), norms
   * 1, biases 0. The same after `manualSeed`. It is in training mode and every weight asks for
   * a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: ViTConfigFields, options?: FromConfigOptions): ViTForImageClassification {
    return fromConfig("ViTForImageClassification.fromConfig", config, options, {
      modelTypes: ["vit"],
      read: vitConfig,
      make: (settled, weights) => new ViTForImageClassification(settled, weights),
    });
  }

  /** Where its weights are: `cpu`, `gpu:0`. */
  get device() {
    return this.classifier.weight.device;
  }

  /** @internal pixels f32 [B, channels, height, width] → [B, 1 + patches, C]. */
  hidden(pixels: Tensor, _: ForwardOptions = {}, states?: Tensor[]): Tensor {
    return this.vit.forward(pixels, this.gradientCheckpointing && trains(this), states);
  }

  /** @internal hidden [B, T, C] → logits [B, N]. */
  logits(hidden: Tensor): Tensor {
    return this.classifier.forward(firstToken(hidden));
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return { ...hubConfig(this.config), ...this.configChanges() };
  }

  /** @internal A tensor's name in a file. */
  override fileName(name: string): string {
    return fileName(name);
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

/** The name that transformers writes, which 4 had in memory too. */
export function fileName(name: string): string {
  return FILE_NAMES.reduce((one, [pattern, to]) => one.replace(pattern, to), name);
}
