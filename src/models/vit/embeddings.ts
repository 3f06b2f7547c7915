import { zeros } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { Dropout } from "../../nn/dropout.js";
import type { Conv2d } from "../../nn/conv.js";
import { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Weights } from "../weights.js";
import { countPatches, type ViTConfig } from "./config.js";

/** Patch embedding: a convolution with the patch size as kernel and stride. */
export class ViTPatchEmbeddings extends Module {
  /** The convolution. */
  projection: Conv2d;

  /** @internal */
  constructor({ numChannels, hiddenSize, patchSize }: ViTConfig, path: string, weights: Weights) {
    super();
    this.projection = weights.patches(`${path}.projection`, numChannels, hiddenSize, patchSize);
  }

  /** Maps pixels [B, channels, height, width] to [B, patches, C]. */
  forward(pixels: Tensor): Tensor {
    const y = this.projection.forward(pixels);
    const [B, C, height, width] = y.shape as [number, number, number, number];
    return y.reshape(B, C, height * width).transpose(1, 2);
  }
}

/** The class token and the patches, plus positions. */
export class ViTEmbeddings extends Module {
  /** [channels, height, width] of an image. */
  readonly imageShape: readonly [number, number, number];
  /** The class token, placed before the patches and used for classification: [1, 1, C]. */
  cls_token: Tensor;
  /** The patch embedding. */
  patch_embeddings: ViTPatchEmbeddings;
  /** The position embedding: [1, 1 + patches, C]. */
  position_embeddings: Tensor;
  /** Dropout of the sum. */
  dropout: Dropout;

  /** @internal */
  constructor(config: ViTConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, numChannels, imageSize, hiddenDropout } = config;
    this.imageShape = [numChannels, ...imageSize];
    this.cls_token = weights.take(`${path}.cls_token`, [1, 1, C]);
    this.patch_embeddings = new ViTPatchEmbeddings(config, `${path}.patch_embeddings`, weights);
    this.position_embeddings = weights.take(`${path}.position_embeddings`, [1, 1 + countPatches(config), C]);
    this.dropout = new Dropout(hiddenDropout);
  }

  /** Maps pixels f32 [B, channels, height, width] to [B, 1 + patches, C]. */
  forward(pixels: Tensor): Tensor {
    const [B, ...shape] = pixels.shape as [number, ...number[]];
    if (pixels.shape.length !== 4 || shape.join() !== this.imageShape.join()) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `forward: pixels are [${pixels.shape.join(", ")}]; this model takes [B, ${this.imageShape.join(", ")}]`,
      );
    }
    const patches = this.patch_embeddings.forward(pixels);
    const first = zeros([B, 1, patches.shape[2] as number], { device: pixels.device }).add(this.cls_token);
    return this.dropout.forward(first.concat(patches, 1).add(this.position_embeddings));
  }
}
