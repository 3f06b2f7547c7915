/** Llama for causal language modelling: Llama 2 and 3, SmolLM2, Mistral, Qwen2 and Qwen3. Paths are transformers'. */
import { Decoder, DecoderModel } from "../decoder.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { LlamaBlock } from "./block.js";
import { hubConfig, llamaConfig, type LlamaConfig, type LlamaConfigFields } from "./config.js";
import { MODEL_TYPES } from "./variants.js";

/** Llama without its head. */
export class LlamaModel extends DecoderModel<LlamaBlock> {
  /** @internal Built of weights by its model. */
  constructor(config: LlamaConfig, weights: Weights) {
    super(config, weights, (index) => new LlamaBlock(config, index, weights));
  }
}

/** Llama 2 and 3, SmolLM2, and by their `model_type` Mistral, Qwen2 (2.5 too) and Qwen3. Submodules and keys of `stateDict` are transformers'. */
export class LlamaForCausalLM extends Decoder<LlamaConfig, LlamaBlock, LlamaModel> {
  /** @internal */
  constructor(config: LlamaConfig, weights: Weights) {
    super(config, weights, () => new LlamaModel(config, weights));
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), norms 1, biases 0.
   * The same after `manualSeed`. It is in training mode and every weight asks for a gradient, unless stored as f16 or
   * bf16.
   *
   * Throws `ERR_OPTION` for a field that is missing, senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not
   * built, `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: LlamaConfigFields, options?: FromConfigOptions): LlamaForCausalLM {
    return fromConfig("LlamaForCausalLM.fromConfig", config, options, {
      modelTypes: MODEL_TYPES,
      read: llamaConfig,
      make: (settled, weights) => new LlamaForCausalLM(settled, weights),
    });
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return hubConfig(this.config);
  }
}
