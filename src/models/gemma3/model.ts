/** Gemma 3 for causal language modelling. Paths are transformers'. */
import type { Tensor } from "../../tensor.js";
import { Decoder, DecoderModel } from "../decoder.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import { Rotations } from "../llama/rotary.js";
import type { Weights } from "../weights.js";
import { Gemma3Block } from "./block.js";
import { hubConfig, gemma3Config, type Gemma3Config, type Gemma3ConfigFields } from "./config.js";
import { gemmaNorm, type Gemma3RMSNorm } from "./norm.js";

/** Gemma 3 without its head. */
export class Gemma3TextModel extends DecoderModel<Gemma3Block> {
  /** The norm after the last block. */
  declare norm: Gemma3RMSNorm;

  /** @internal Built of weights by its model. */
  constructor(config: Gemma3Config, weights: Weights) {
    super(
      config,
      weights,
      (index) => new Gemma3Block(config, index, weights),
      () => gemmaNorm(weights, "model.norm", config.hiddenSize, config.rmsNormEps),
    );
  }
}

/** The language models of Gemma 3, `gemma3_text`. Submodules and keys of `stateDict` are transformers'. */
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
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), norms and biases 0.
   * The same after `manualSeed`. It is in training mode and every weight asks for a gradient, unless stored as f16 or
   * bf16.
   *
   * Throws `ERR_OPTION` for a field that is missing, senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not
   * built, `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: Gemma3ConfigFields, options?: FromConfigOptions): Gemma3ForCausalLM {
    return fromConfig("Gemma3ForCausalLM.fromConfig", config, options, {
      modelTypes: ["gemma3_text"],
      read: gemma3Config,
      make: (settled, weights) => new Gemma3ForCausalLM(settled, weights),
    });
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return hubConfig(this.config);
  }

  /** @internal Logits are within ± this; undefined where they are not capped. */
  override get logitSoftcap(): number | undefined {
    return this.config.finalLogitSoftcapping;
  }

  /** The embedding times √C. */
  override embedTokens(ids: Tensor): Tensor {
    return super.embedTokens(ids).mul(Math.sqrt(this.config.hiddenSize));
  }
}
