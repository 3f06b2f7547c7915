import { arange } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import type { Conv1d } from "../../nn/conv.js";
import { Dropout } from "../../nn/dropout.js";
import type { Embedding } from "../../nn/embedding.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import type { Tensor } from "../../tensor/tensor.js";
import { runBlocks, replaceLastState } from "../pretrained.js";
import { normaliseEnd, runBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import { NORM_EPS, WhisperEncoderLayer } from "./block.js";
import type { WhisperConfig } from "./config.js";

/**
 * The encoder: maps log-mel features to hidden states through two convolutions, the second with stride 2, and blocks.
 */
export class WhisperEncoder extends Module {
  /** The shape of its input. */
  readonly featureShape: readonly [mels: number, frames: number];
  /** The first convolution, from mel bands to C channels. */
  conv1: Conv1d;
  /** The second convolution, with stride 2. */
  conv2: Conv1d;
  /** Positions as sines and cosines, which are not trained. */
  embed_positions: Embedding;
  /** Dropout of the sum with the positions. */
  dropout: Dropout;
  /** The blocks, from first to last. */
  layers: WhisperEncoderLayer[];
  /** The norm after the last block. */
  layer_norm: LayerNorm;

  /** @internal */
  constructor(config: WhisperConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, numMelBins, maxSourcePositions } = config;
    this.featureShape = [numMelBins, 2 * maxSourcePositions];
    this.conv1 = weights.conv1d(`${path}.conv1`, numMelBins, C, 3, { padding: 1 });
    this.conv2 = weights.conv1d(`${path}.conv2`, C, C, 3, { stride: 2, padding: 1 });
    this.embed_positions = weights.embedding(`${path}.embed_positions`, maxSourcePositions, C, {
      start: createSinusoids,
    });
    this.embed_positions.weight.requiresGrad = false;
    this.dropout = new Dropout(config.dropout);
    this.layers = Array.from(
      { length: config.encoder.layers },
      (_, i) => new WhisperEncoderLayer(config, `${path}.layers.${i}`, weights),
    );
    this.layer_norm = weights.layerNorm(`${path}.layer_norm`, C, NORM_EPS);
  }

  /** Maps features f32 [B, mels, 2 · S] to [B, S, C]. Throws `ERR_SHAPE_MISMATCH`. */
  forward(features: Tensor, checkpointed = false, states?: Tensor[]): Tensor {
    const [, ...shape] = features.shape;
    if (features.shape.length !== 3 || shape.join() !== this.featureShape.join()) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `forward: features are [${features.shape.join(", ")}]; this model takes [B, ${this.featureShape.join(", ")}]`,
      );
    }
    const y = this.conv2.forward(this.conv1.forward(features).gelu()).gelu().transpose(1, 2);
    const positions = arange(this.embed_positions.numEmbeddings, { device: features.device });
    const x = this.dropout.forward(y.add(this.embed_positions.forward(positions)));
    const run = (layer: WhisperEncoderLayer, y: Stream): Stream => runBlock(layer, y);
    return replaceLastState(
      states,
      normaliseEnd(this.layer_norm, runBlocks(this.layers, x, checkpointed, run, states)),
    );
  }
}

/** Returns sines in the first half of the channels and cosines in the second, with periods from 2π to 20,000π. */
function createSinusoids([rows, C]: readonly number[]): Float32Array {
  const [positions, half] = [rows as number, (C as number) / 2];
  const table = new Float32Array(positions * 2 * half);
  for (let position = 0; position < positions; position++) {
    for (let c = 0; c < half; c++) {
      const angle = position * Math.exp((-Math.log(10_000) * c) / (half - 1));
      table[position * 2 * half + c] = Math.sin(angle);
      table[position * 2 * half + half + c] = Math.cos(angle);
    }
  }
  return table;
}
