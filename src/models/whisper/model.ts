/** Whisper for speech to text. Parameter paths match transformers. */
import { tensor } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import type { Embedding } from "../../nn/embedding.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { takeLanguageHead } from "../causal-lm.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import {
  SpeechToText,
  type SpeechStates,
  type TranscribeOptions,
  type Transcription,
} from "../speech-to-text.js";
import type { Weights } from "../weights.js";
import {
  writeWhisperConfig,
  readWhisperConfig,
  type WhisperConfig,
  type WhisperConfigFields,
} from "./config.js";
import { WhisperDecoder } from "./decoder.js";
import { WhisperEncoder } from "./encoder.js";
import { checkSamples, LogMel } from "./features.js";
import { buildBeginning, transcribe } from "./transcribe.js";

/** Whisper without its head. */
export class WhisperModel extends Module {
  /** The encoder of features. */
  encoder: WhisperEncoder;
  /** The decoder of tokens. */
  decoder: WhisperDecoder;

  /** @internal */
  constructor(config: WhisperConfig, weights: Weights) {
    super();
    this.encoder = new WhisperEncoder(config, "model.encoder", weights);
    this.decoder = new WhisperDecoder(config, "model.decoder", weights);
  }

  /** Throws `ERR_INTERNAL`: it runs only as part of `WhisperForConditionalGeneration`. */
  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "WhisperModel runs as part of WhisperForConditionalGeneration");
  }
}

/** Whisper with its head. Submodules and `stateDict` keys have transformers' names. */
export class WhisperForConditionalGeneration extends SpeechToText {
  /** The fields of `config.json`, in camel case. */
  readonly config: WhisperConfig & Record<string, unknown>;
  /** Everything but the head. */
  model: WhisperModel;
  /** The output head; it shares the weight of `model.decoder.embed_tokens` where the two are tied. */
  proj_out: Linear;
  /** @internal The path of the head, which the target `all-linear` excludes. */
  readonly outputHead = "proj_out";
  #logMel: LogMel | undefined;

  /** @internal */
  constructor(config: WhisperConfig, weights: Weights) {
    super(weights);
    this.config = config as WhisperConfig & Record<string, unknown>;
    this.model = new WhisperModel(config, weights);
    const { embed_tokens } = this.model.decoder;
    this.proj_out = takeLanguageHead(embed_tokens, config.tieWordEmbeddings, weights, "proj_out");
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0, `init_std`²), padding
   * row and biases 0, norms 1, the encoder's positions as sines and cosines. Reproducible with `manualSeed`. The model
   * is in training mode, and all weights except the encoder's positions require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(
    config: WhisperConfigFields,
    options?: FromConfigOptions,
  ): WhisperForConditionalGeneration {
    return buildFromConfig("WhisperForConditionalGeneration.fromConfig", config, options, {
      modelTypes: ["whisper"],
      read: readWhisperConfig,
      make: (settled, weights) => new WhisperForConditionalGeneration(settled, weights),
    });
  }

  /** The output head: `proj_out`. */
  get head(): Linear {
    return this.proj_out;
  }

  /** The device of the weights: `cpu`, `gpu:0`. */
  get device() {
    return this.getInputEmbedding().weight.device;
  }

  /** @internal The window length of the encoder, in samples. */
  get windowSamples(): number {
    return this.#features.samples;
  }

  /** The feature extractor. */
  get #features(): LogMel {
    const { numMelBins, maxSourcePositions } = this.config;
    return (this.#logMel ??= new LogMel(numMelBins, 2 * maxSourcePositions));
  }

  /**
   * Computes the log-mel features for `forward`, f32 [B, mels, frames], from samples at 16 kHz, from −1 to 1: one
   * Float32Array or several. As in transformers' WhisperFeatureExtractor, speech shorter than the model's window (30 s)
   * is padded with silence, and longer speech is truncated. Throws `ERR_OPTION` for samples of another type or that are
   * not finite.
   */
  features(samples: Float32Array | readonly Float32Array[]): Tensor {
    const all = Array.isArray(samples) ? (samples as Float32Array[]) : [samples as Float32Array];
    const { mels, frames, samples: window } = this.#features;
    const values = new Float32Array(all.length * mels * frames);
    for (const [b, clip] of all.entries()) {
      const name = Array.isArray(samples) ? `samples[${b}]` : "samples";
      const speech = checkSamples("features", name, clip).subarray(0, window);
      values.set(this.#features.compute(speech), b * mels * frames);
    }
    return tensor(values, { shape: [all.length, mels, frames], device: this.device });
  }

  /**
   * Transcribes speech greedily from samples at 16 kHz, from −1 to 1. Longer speech is split into windows of 30 s (the
   * model's window) without overlap, which are transcribed separately, all in the language of the first. A word at a
   * boundary may be lost, so split long speech at pauses. There are no timestamps.
   *
   * Throws `ERR_OPTION` for samples of another type, empty or not finite, for a language or task that the model lacks,
   * and for either with an English-only model; `ERR_UNSUPPORTED_MODEL` where `generation_config.json` does not name the
   * start tokens; `ERR_FILE_NOT_FOUND` for a model without a tokenizer; `ERR_NOT_FINITE` for a NaN logit; the signal's
   * reason.
   */
  transcribe(samples: Float32Array, options: TranscribeOptions = {}): Promise<Transcription> {
    return transcribe(this, samples, options);
  }

  /** @internal Returns the start tokens of a text in `language`, for training. Throws as `transcribe` does. */
  buildBeginning(where: string, language: string | undefined): number[] {
    const { language: spoken, rest } = buildBeginning(where, this.config.generation, { language });
    if (spoken === "find") {
      const known = [...this.config.generation.languages.keys()].join(", ");
      throw new LowrankError("ERR_OPTION", `${where}: give the language that is spoken, one of ${known}`);
    }
    const { decoderStartTokenId: start } = this.config;
    return spoken === undefined ? [start, ...rest] : [start, spoken, ...rest];
  }

  /** @internal The decoder's token embedding. */
  getInputEmbedding(): Embedding {
    return this.model.decoder.embed_tokens;
  }

  /** @internal Maps features f32 [B, mels, frames] and ids i32 [B, T] to [B, T, C], after the decoder's last norm. */
  computeHidden(features: Tensor, ids: Tensor, states?: SpeechStates): Tensor {
    const checkpointed = this.gradientCheckpointing && isTraining(this);
    const { encoder, decoder } = this.model;
    const encoded = encoder.forward(features, checkpointed, states?.encoder);
    return decoder.forward(ids, encoded, checkpointed, states?.decoder);
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return writeWhisperConfig(this.config);
  }

  /** @internal Configuration fields that have changed since loading. */
  override listConfigChanges(): Record<string, unknown> {
    // Training only the head or only the embedding unties them.
    return { tie_word_embeddings: this.proj_out.weight === this.getInputEmbedding().weight };
  }
}
