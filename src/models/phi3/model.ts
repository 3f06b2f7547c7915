/** Phi-3 and Phi-4 for causal language modelling. Parameter paths match transformers. */
import { Decoder, DecoderModel } from "../decoder/decoder.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { Phi3Block } from "./block.js";
import { writePhi3Config, readPhi3Config, type Phi3Config, type Phi3ConfigFields } from "./config.js";

/** Phi-3 without its head. */
export class Phi3Model extends DecoderModel<Phi3Block> {
  /** @internal */
  constructor(config: Phi3Config, weights: Weights) {
    super(config, weights, (index) => new Phi3Block(config, index, weights));
  }
}

/** Phi-3 and Phi-4, `model_type` `phi3`. Submodules and `stateDict` keys have transformers' names. */
export class Phi3ForCausalLM extends Decoder<Phi3Config, Phi3Block, Phi3Model> {
  /** @internal */
  constructor(config: Phi3Config, weights: Weights) {
    super(config, weights, () => new Phi3Model(config, weights));
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), norms 1. Reproducible with `manualSeed`. The model is in training mode, and all weights
   * require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for a missing, invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: Phi3ConfigFields, options?: FromConfigOptions): Phi3ForCausalLM {
    return buildFromConfig("Phi3ForCausalLM.fromConfig", config, options, {
      modelTypes: ["phi3"],
      read: readPhi3Config,
      make: (settled, weights) => new Phi3ForCausalLM(settled, weights),
    });
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return writePhi3Config(this.config);
  }
}
