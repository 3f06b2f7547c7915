/**
 * Llama for causal language modelling: Llama 2 and 3, SmolLM2, Mistral, Qwen2 and Qwen3. Parameter paths match
 * transformers.
 */
import { Decoder, DecoderModel } from "../decoder/decoder.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { LlamaBlock } from "./block.js";
import { writeLlamaConfig, readLlamaConfig, type LlamaConfig, type LlamaConfigFields } from "./config.js";
import { MODEL_TYPES } from "./variants.js";

/** Llama without its head. */
export class LlamaModel extends DecoderModel<LlamaBlock> {
  /** @internal */
  constructor(config: LlamaConfig, weights: Weights) {
    super(config, weights, (index) => new LlamaBlock(config, index, weights));
  }
}

/**
 * Llama 2 and 3, SmolLM2, and by `model_type` Mistral, Qwen2 and 2.5, and Qwen3. Submodules and `stateDict` keys have
 * transformers' names.
 */
export class LlamaForCausalLM extends Decoder<LlamaConfig, LlamaBlock, LlamaModel> {
  /** @internal */
  constructor(config: LlamaConfig, weights: Weights) {
    super(config, weights, () => new LlamaModel(config, weights));
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), norms 1, biases 0. Reproducible with `manualSeed`. The model is in training mode, and all
   * weights require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for a missing, invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: LlamaConfigFields, options?: FromConfigOptions): LlamaForCausalLM {
    return buildFromConfig("LlamaForCausalLM.fromConfig", config, options, {
      modelTypes: MODEL_TYPES,
      read: readLlamaConfig,
      make: (settled, weights) => new LlamaForCausalLM(settled, weights),
    });
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return writeLlamaConfig(this.config);
  }
}
