import { arange } from "../../tensor/create.js";
import type { Device } from "../../device/device.js";
import { Dropout } from "../../nn/dropout.js";
import type { Embedding } from "../../nn/embedding.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { keep } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { KeyValueCache } from "../cache.js";
import { runBlocks, checkLength, replaceLastState } from "../pretrained.js";
import { normaliseEnd, runBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import type { KeysAndValues } from "./attention.js";
import { NORM_EPS, WhisperDecoderLayer } from "./block.js";
import type { WhisperConfig } from "./config.js";

/** The keys and values of a text so far, and of the encoder's output, which are computed once. */
export class SpeechCache {
  /** @internal Created by `WhisperDecoder.createCache`. */
  constructor(
    /** @internal */
    readonly text: KeyValueCache,
    /** @internal One entry per block. */
    readonly encoded: readonly KeysAndValues[],
  ) {}

  /** @internal Frees the buffers. */
  dispose(): void {
    this.text.dispose();
    for (const { k, v } of this.encoded) for (const tensor of [k, v]) tensor.dispose();
  }
}

/** The decoder: maps tokens to hidden states, given the encoder's output. */
export class WhisperDecoder extends Module {
  /** The token embedding. */
  embed_tokens: Embedding;
  /** The position embedding. */
  embed_positions: Embedding;
  /** Dropout of their sum. */
  dropout: Dropout;
  /** The blocks, from first to last. */
  layers: WhisperDecoderLayer[];
  /** The norm after the last block. */
  layer_norm: LayerNorm;

  /** @internal */
  constructor(config: WhisperConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, vocabSize, maxPositionEmbeddings, padTokenId: paddingIdx } = config;
    this.embed_tokens = weights.embedding(`${path}.embed_tokens`, vocabSize, C, { paddingIdx });
    this.embed_positions = weights.embedding(`${path}.embed_positions`, maxPositionEmbeddings, C);
    this.dropout = new Dropout(config.dropout);
    this.layers = Array.from(
      { length: config.decoder.layers },
      (_, i) => new WhisperDecoderLayer(config, `${path}.layers.${i}`, weights),
    );
    this.layer_norm = weights.layerNorm(`${path}.layer_norm`, C, NORM_EPS);
  }

  /**
   * Maps ids i32 [B, T] to [B, T, C], given the encoder's states [B, S, C] or a cache of previous tokens. Throws
   * `ERR_SHAPE_MISMATCH`, `ERR_INDEX` for a text that is too long.
   */
  forward(ids: Tensor, encoded: Tensor | SpeechCache, checkpointed = false, states?: Tensor[]): Tensor {
    const cache = encoded instanceof SpeechCache ? encoded : undefined;
    const start = cache?.text.length ?? 0;
    const T = checkLength(ids, start, this.embed_positions.numEmbeddings);
    const positions = arange(start + T, { start, device: ids.device });
    const words = this.embed_tokens.forward(ids);
    const x = this.dropout.forward(words.add(this.embed_positions.forward(positions)));
    const run = (layer: WhisperDecoderLayer, y: Stream, i: number): Stream =>
      runBlock(layer, y, {
        encoded: cache === undefined ? (encoded as Tensor) : (cache.encoded[i] as KeysAndValues),
        cache: cache?.text.layers[i],
      });
    return replaceLastState(
      states,
      normaliseEnd(this.layer_norm, runBlocks(this.layers, x, checkpointed, run, states)),
    );
  }

  /** @internal Returns an empty cache for texts about `states` [B, S, C]. */
  createCache(states: Tensor): SpeechCache {
    const encoded = this.layers.map(({ encoder_attn }) => encoder_attn.projectKeysAndValues(states));
    for (const { k, v } of encoded) for (const tensor of [k, v]) keep(tensor);
    const { heads } = (this.layers[0] as WhisperDecoderLayer).self_attn;
    const { embeddingDim: C, numEmbeddings: limit } = this.embed_positions;
    const shape = {
      batch: states.shape[0] as number,
      heads,
      headDim: C / heads,
      device: states.device as Device,
    };
    return new SpeechCache(new KeyValueCache(this.layers.length, limit, shape), encoded);
  }
}
