/** Phi-3 and Phi-4 for causal language modelling. Paths are transformers'. */
import { Decoder, DecoderModel } from "../decoder.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { Phi3Block } from "./block.js";
import { hubConfig, phi3Config, type Phi3Config, type Phi3ConfigFields } from "./config.js";

/** Phi-3 without its head. */
export class Phi3Model extends DecoderModel<Phi3Block> {
  /** @internal Built of weights by its model. */
  constructor(config: Phi3Config, weights: Weights) {
    super(config, weights, (index) => new Phi3Block(config, index, weights));
  }
}

/** Phi-3 and Phi-4, by the `model_type` `phi3`. Submodules and keys of `stateDict` are transformers'. */
export class Phi3ForCausalLM extends Decoder<Phi3Config, Phi3Block, Phi3Model> {
  /** @internal */
  constructor(config: Phi3Config, weights: Weights) {
    super(config, weights, () => new Phi3Model(config, weights));
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), norms 1.
   * The same after `manualSeed`. It is in training mode and every weight asks for a gradient, unless stored as f16 or
   * bf16.
   *
   * Throws `ERR_OPTION` for a field that is missing, senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not
   * built, `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: Phi3ConfigFields, options?: FromConfigOptions): Phi3ForCausalLM {
    return fromConfig("Phi3ForCausalLM.fromConfig", config, options, {
      modelTypes: ["phi3"],
      read: phi3Config,
      make: (settled, weights) => new Phi3ForCausalLM(settled, weights),
    });
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return hubConfig(this.config);
  }
}
