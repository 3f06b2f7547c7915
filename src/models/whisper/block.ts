/**
 * The blocks of Whisper (Radford et al. 2022): norm, attention, norm, MLP; the decoder's also attend to the encoder.
 */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import type { LayerNorm } from "../../nn/norm.js";
import type { Tensor } from "../../tensor/tensor.js";
import { activate, type ActivationName } from "../activation.js";
import type { LayerCache } from "../cache.js";
import { normaliseSum, ResidualBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import { WhisperAttention, type KeysAndValues } from "./attention.js";
import type { WhisperConfig } from "./config.js";

/** The epsilon of every LayerNorm; the configuration has no field for it. */
export const NORM_EPS = 1e-5;

/** The common parts of encoder and decoder blocks: self-attention, MLP, and the norms before them. */
abstract class WhisperLayer<Inputs extends unknown[] = []> extends ResidualBlock<Inputs> {
  /** The activation of the MLP. */
  readonly activation: ActivationName;
  /** Self-attention. */
  self_attn: WhisperAttention;
  /** The norm before self-attention. */
  self_attn_layer_norm: LayerNorm;
  /** From C to the inner channels. */
  fc1: Linear;
  /** From the inner channels to C. */
  fc2: Linear;
  /** The norm before the MLP. */
  final_layer_norm: LayerNorm;
  /** Dropout before the residual sum. */
  dropout: Dropout;
  /** Dropout inside the MLP. */
  activation_dropout: Dropout;

  constructor(config: WhisperConfig, half: "encoder" | "decoder", path: string, weights: Weights) {
    super();
    const { hiddenSize: C } = config;
    const { heads, intermediateSize } = config[half];
    this.activation = config.activation;
    this.self_attn = new WhisperAttention(config, heads, `${path}.self_attn`, weights);
    this.self_attn_layer_norm = weights.layerNorm(`${path}.self_attn_layer_norm`, C, NORM_EPS);
    this.fc1 = weights.linear(`${path}.fc1`, C, intermediateSize, true);
    this.fc2 = weights.linear(`${path}.fc2`, intermediateSize, C, true);
    this.final_layer_norm = weights.layerNorm(`${path}.final_layer_norm`, C, NORM_EPS);
    this.dropout = new Dropout(config.dropout);
    this.activation_dropout = new Dropout(config.activationDropout);
  }

  /** The MLP, without its norm. */
  protected runMlp(x: Tensor): Tensor {
    const inner = this.activation_dropout.forward(activate(this.activation, this.fc1.forward(x)));
    return this.dropout.forward(this.fc2.forward(inner));
  }
}

/** x + attention(norm(x)), then + mlp(norm(·)). */
export class WhisperEncoderLayer extends WhisperLayer {
  /** @internal */
  constructor(config: WhisperConfig, path: string, weights: Weights) {
    super(config, "encoder", path, weights);
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  run(stream: Stream): Stream {
    const [x, y] = normaliseSum(this.self_attn_layer_norm, stream);
    const added = this.dropout.forward(this.self_attn.forward(y, { causal: false }));
    const [attended, z] = normaliseSum(this.final_layer_norm, { x, added });
    return { x: attended, added: this.runMlp(z) };
  }
}

/** Additional inputs of a decoder block. */
export interface DecoderInputs {
  /** The encoder's states [B, S, C], or keys and values computed from them before. */
  encoded: Tensor | KeysAndValues;
  /** The KV cache of the previous tokens. */
  cache?: LayerCache | undefined;
}

/** x + attention(norm(x)), + attention over the encoder's states, then + mlp(norm(·)). */
export class WhisperDecoderLayer extends WhisperLayer<[inputs: DecoderInputs]> {
  /** Cross-attention to the encoder's output. */
  encoder_attn: WhisperAttention;
  /** The norm before cross-attention. */
  encoder_attn_layer_norm: LayerNorm;

  /** @internal */
  constructor(config: WhisperConfig, path: string, weights: Weights) {
    super(config, "decoder", path, weights);
    const { hiddenSize: C, decoder } = config;
    this.encoder_attn = new WhisperAttention(config, decoder.heads, `${path}.encoder_attn`, weights);
    this.encoder_attn_layer_norm = weights.layerNorm(`${path}.encoder_attn_layer_norm`, C, NORM_EPS);
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  run(stream: Stream, { encoded, cache }: DecoderInputs): Stream {
    const [x, y] = normaliseSum(this.self_attn_layer_norm, stream);
    const attended = this.dropout.forward(this.self_attn.forward(y, { causal: true, cache }));
    const [second, z] = normaliseSum(this.encoder_attn_layer_norm, { x, added: attended });
    const keysAndValues = "k" in encoded ? encoded : this.encoder_attn.projectKeysAndValues(encoded);
    const across = this.dropout.forward(this.encoder_attn.attendAcross(z, keysAndValues));
    const [third, w] = normaliseSum(this.final_layer_norm, { x: second, added: across });
    return { x: third, added: this.runMlp(w) };
  }
}
