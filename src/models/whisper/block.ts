/** The blocks of Whisper (Radford et al. 2022): norm, attention, norm, MLP; the decoder's attend to the encoder besides. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import type { LayerNorm } from "../../nn/norm.js";
import type { Tensor } from "../../tensor.js";
import { activate, type ActivationName } from "../activation.js";
import type { LayerCache } from "../cache.js";
import { normed, ResidualBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import { WhisperAttention, type KeysAndValues } from "./attention.js";
import type { WhisperConfig } from "./config.js";

/** Added to the variance in every norm: no field of the configuration. */
export const NORM_EPS = 1e-5;

/** What the blocks of both halves have: self-attention, an MLP, and the norms before them. */
abstract class WhisperLayer<Inputs extends unknown[] = []> extends ResidualBlock<Inputs> {
  /** What lies between the MLP's two products. */
  readonly activation: ActivationName;
  /** Self-attention. */
  self_attn: WhisperAttention;
  /** The norm before self-attention. */
  self_attn_layer_norm: LayerNorm;
  /** C to the inner channels. */
  fc1: Linear;
  /** The inner channels to C. */
  fc2: Linear;
  /** The norm before the MLP. */
  final_layer_norm: LayerNorm;
  /** Dropout of what is added. */
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

  /** The MLP over what its norm gave. */
  protected mlp(x: Tensor): Tensor {
    const inner = this.activation_dropout.forward(activate(this.activation, this.fc1.forward(x)));
    return this.dropout.forward(this.fc2.forward(inner));
  }
}

/** x + attention(norm(x)), then + mlp(norm(·)). */
export class WhisperEncoderLayer extends WhisperLayer {
  /** @internal Built of weights by its model. */
  constructor(config: WhisperConfig, path: string, weights: Weights) {
    super(config, "encoder", path, weights);
  }

  /** @internal `forward`, which leaves the last sum to what reads it. */
  run(stream: Stream): Stream {
    const [x, y] = normed(this.self_attn_layer_norm, stream);
    const added = this.dropout.forward(this.self_attn.forward(y, { causal: false }));
    const [attended, z] = normed(this.final_layer_norm, { x, added });
    return { x: attended, added: this.mlp(z) };
  }
}

/** What a decoder's block reads besides its input. */
export interface DecoderInputs {
  /** What the encoder gave: its states [B, S, C], or keys and values that were made of them before. */
  encoded: Tensor | KeysAndValues;
  /** Keys and values of the tokens so far. */
  cache?: LayerCache | undefined;
}

/** x + attention(norm(x)), + attention over the encoder's states, then + mlp(norm(·)). */
export class WhisperDecoderLayer extends WhisperLayer<[inputs: DecoderInputs]> {
  /** Attention to what the encoder gave. */
  encoder_attn: WhisperAttention;
  /** The norm before it. */
  encoder_attn_layer_norm: LayerNorm;

  /** @internal Built of weights by its model. */
  constructor(config: WhisperConfig, path: string, weights: Weights) {
    super(config, "decoder", path, weights);
    const { hiddenSize: C, decoder } = config;
    this.encoder_attn = new WhisperAttention(config, decoder.heads, `${path}.encoder_attn`, weights);
    this.encoder_attn_layer_norm = weights.layerNorm(`${path}.encoder_attn_layer_norm`, C, NORM_EPS);
  }

  /** @internal `forward`, which leaves the last sum to what reads it. */
  run(stream: Stream, { encoded, cache }: DecoderInputs): Stream {
    const [x, y] = normed(this.self_attn_layer_norm, stream);
    const own = this.dropout.forward(this.self_attn.forward(y, { causal: true, cache }));
    const [second, z] = normed(this.encoder_attn_layer_norm, { x, added: own });
    const made = "k" in encoded ? encoded : this.encoder_attn.keysAndValues(encoded);
    const across = this.dropout.forward(this.encoder_attn.across(z, made));
    const [third, w] = normed(this.final_layer_norm, { x: second, added: across });
    return { x: third, added: this.mlp(w) };
  }
}
