/** Gemma 3 for causal language modelling. Parameter paths match transformers. */
import type { Tensor } from "../../tensor/tensor.js";
import { Decoder, DecoderModel } from "../decoder/decoder.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import { Rotations } from "../decoder/rotary.js";
import type { Weights } from "../weights.js";
import { Gemma3Block } from "./block.js";
import { writeGemma3Config, readGemma3Config, type Gemma3Config, type Gemma3ConfigFields } from "./config.js";
import { takeGemmaNorm, type Gemma3RMSNorm } from "./norm.js";

/** Gemma 3 without its head. */
export class Gemma3TextModel extends DecoderModel<Gemma3Block> {
  /** The norm after the last block. */
  declare norm: Gemma3RMSNorm;

  /** @internal */
  constructor(config: Gemma3Config, weights: Weights) {
    super(
      config,
      weights,
      (index) => new Gemma3Block(config, index, weights),
      () => takeGemmaNorm(weights, "model.norm", config.hiddenSize, config.rmsNormEps),
    );
  }
}

/** Gemma 3's language models, `gemma3_text`. Submodules and `stateDict` keys have transformers' names. */
export class Gemma3ForCausalLM extends Decoder<Gemma3Config, Gemma3Block, Gemma3TextModel> {
  /** @internal */
  constructor(config: Gemma3Config, weights: Weights) {
    super(
      config,
      weights,
      () => new Gemma3TextModel(config, weights),
      () => [new Rotations(config), new Rotations({ ...config, rope: config.slidingRope })],
    );
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), norms and biases 0. Reproducible with `manualSeed`. The model is in training mode, and all
   * weights require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for a missing, invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: Gemma3ConfigFields, options?: FromConfigOptions): Gemma3ForCausalLM {
    return buildFromConfig("Gemma3ForCausalLM.fromConfig", config, options, {
      modelTypes: ["gemma3_text"],
      read: readGemma3Config,
      make: (settled, weights) => new Gemma3ForCausalLM(settled, weights),
    });
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return writeGemma3Config(this.config);
  }

  /** @internal The cap c of logits, c · tanh(x / c); undefined for none. */
  override get logitSoftcap(): number | undefined {
    return this.config.finalLogitSoftcapping;
  }

  /** Returns the token embeddings times √C. */
  override embedTokens(ids: Tensor): Tensor {
    return super.embedTokens(ids).mul(Math.sqrt(this.config.hiddenSize));
  }
}
