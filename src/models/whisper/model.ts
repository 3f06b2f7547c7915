/** Whisper for speech to text. Paths are transformers'. */
import { tensor } from "../../create.js";
import { LowrankError } from "../../errors.js";
import type { Embedding } from "../../nn/embedding.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import { trains } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { languageHead } from "../causal-lm.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import {
  SpeechToText,
  type SpeechStates,
  type TranscribeOptions,
  type Transcription,
} from "../speech-to-text.js";
import type { Weights } from "../weights.js";
import { hubConfig, whisperConfig, type WhisperConfig, type WhisperConfigFields } from "./config.js";
import { WhisperDecoder } from "./decoder.js";
import { WhisperEncoder } from "./encoder.js";
import { checkSamples, LogMel } from "./features.js";
import { beginningOf, transcribe } from "./transcribe.js";

/** Whisper without its head. */
export class WhisperModel extends Module {
  /** What reads features. */
  encoder: WhisperEncoder;
  /** What writes tokens. */
  decoder: WhisperDecoder;

  /** @internal Built of weights by its model. */
  constructor(config: WhisperConfig, weights: Weights) {
    super();
    this.encoder = new WhisperEncoder(config, "model.encoder", weights);
    this.decoder = new WhisperDecoder(config, "model.decoder", weights);
  }

  /** Throws `ERR_INTERNAL`: it runs as a part of `WhisperForConditionalGeneration`. */
  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "WhisperModel runs as part of WhisperForConditionalGeneration");
  }
}

/** Whisper with its head. Submodules and keys of `stateDict` are transformers'. */
export class WhisperForConditionalGeneration extends SpeechToText {
  /** What `config.json` says, in one spelling. */
  readonly config: WhisperConfig & Record<string, unknown>;
  /** Everything but the head. */
  model: WhisperModel;
  /** The output head; its weight is `model.decoder.embed_tokens`' where the two are tied. */
  proj_out: Linear;
  /** @internal The path of the head, which `all-linear` leaves alone. */
  readonly outputHead = "proj_out";
  #logMel: LogMel | undefined;

  /** @internal */
  constructor(config: WhisperConfig, weights: Weights) {
    super(weights);
    this.config = config as WhisperConfig & Record<string, unknown>;
    this.model = new WhisperModel(config, weights);
    const { embed_tokens } = this.model.decoder;
    this.proj_out = languageHead(embed_tokens, config.tieWordEmbeddings, weights, "proj_out");
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `init_std`²), the padding's
   * row and biases 0, norms 1, the encoder's positions sines and cosines. The same after `manualSeed`. It is in training
   * mode and every weight but the encoder's positions asks for a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(
    config: WhisperConfigFields,
    options?: FromConfigOptions,
  ): WhisperForConditionalGeneration {
    return fromConfig("WhisperForConditionalGeneration.fromConfig", config, options, {
      modelTypes: ["whisper"],
      read: whisperConfig,
      make: (settled, weights) => new WhisperForConditionalGeneration(settled, weights),
    });
  }

  /** `proj_out`. */
  get head(): Linear {
    return this.proj_out;
  }

  /** Where its weights are: `cpu`, `gpu:0`. */
  get device() {
    return this.inputEmbedding().weight.device;
  }

  /** @internal How many samples features are made of: what the model hears at once. */
  get windowSamples(): number {
    return this.#features.samples;
  }

  /** What makes features of samples. */
  get #features(): LogMel {
    const { numMelBins, maxSourcePositions } = this.config;
    return (this.#logMel ??= new LogMel(numMelBins, 2 * maxSourcePositions));
  }

  /**
   * Log-mel features of samples at 16 kHz, from −1 to 1, as `forward` takes them: f32 [B, mels, frames], of one
   * Float32Array or of several. As transformers' WhisperFeatureExtractor: shorter speech is followed by silence, and
   * what comes after the model's window (30 s) is left out. Throws `ERR_OPTION` for samples of another kind or that are
   * not finite.
   */
  features(samples: Float32Array | readonly Float32Array[]): Tensor {
    const all = Array.isArray(samples) ? (samples as Float32Array[]) : [samples as Float32Array];
    const { mels, frames, samples: window } = this.#features;
    const values = new Float32Array(all.length * mels * frames);
    for (const [b, one] of all.entries()) {
      const name = Array.isArray(samples) ? `samples[${b}]` : "samples";
      const speech = checkSamples("features", name, one).subarray(0, window);
      values.set(this.#features.of(speech), b * mels * frames);
    }
    return tensor(values, { shape: [all.length, mels, frames], device: this.device });
  }

  /**
   * Writes down what is said: the likeliest token each time. Samples are at 16 kHz, from −1 to 1. What is longer than
   * the model's window (30 s) is cut into windows without overlap, each written by itself and in the language of the
   * first; a word that lies across a cut may be lost, so long speech is best cut where it pauses. There are no times.
   *
   * Throws `ERR_OPTION` for samples of another kind, empty or not finite, for a language or a task that the model has
   * not, and for either where it is of English alone; `ERR_UNSUPPORTED_MODEL` where its `generation_config.json` does
   * not say how texts begin; `ERR_FILE_NOT_FOUND` for a model without a tokenizer; `ERR_NOT_FINITE` where a logit is NaN;
   * the signal's reason.
   */
  transcribe(samples: Float32Array, options: TranscribeOptions = {}): Promise<Transcription> {
    return transcribe(this, samples, options);
  }

  /** @internal Ids that a text in `language` begins with, for training. Throws as `transcribe` does. */
  beginning(where: string, language: string | undefined): number[] {
    const { language: spoken, rest } = beginningOf(where, this.config.generation, { language });
    if (spoken === "find") {
      const known = [...this.config.generation.languages.keys()].join(", ");
      throw new LowrankError("ERR_OPTION", `${where}: give the language that is spoken, one of ${known}`);
    }
    const { decoderStartTokenId: start } = this.config;
    return spoken === undefined ? [start, ...rest] : [start, spoken, ...rest];
  }

  /** @internal The embedding that takes the decoder's ids. */
  inputEmbedding(): Embedding {
    return this.model.decoder.embed_tokens;
  }

  /** @internal features f32 [B, mels, frames] and ids i32 [B, T] → [B, T, C], after the decoder's last norm. */
  hidden(features: Tensor, ids: Tensor, states?: SpeechStates): Tensor {
    const checkpointed = this.gradientCheckpointing && trains(this);
    const { encoder, decoder } = this.model;
    const encoded = encoder.forward(features, checkpointed, states?.encoder);
    return decoder.forward(ids, encoded, checkpointed, states?.decoder);
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return hubConfig(this.config);
  }

  /** @internal What of the configuration has changed since it was read. */
  override configChanges(): Record<string, unknown> {
    // A head or an embedding that was trained alone is tied no more.
    return { tie_word_embeddings: this.proj_out.weight === this.inputEmbedding().weight };
  }
}
