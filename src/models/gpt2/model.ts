/** GPT-2 for causal language modelling. Paths are transformers'. */
import { arange } from "../../create.js";
import { LowrankError } from "../../errors.js";
import { Dropout } from "../../nn/dropout.js";
import type { Embedding } from "../../nn/embedding.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { trains } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { KeyValueCache } from "../cache.js";
import { CausalLM, languageHead } from "../causal-lm.js";
import { chain, checkedLength, type ForwardOptions } from "../pretrained.js";
import { ended, through } from "../stream.js";
import type { Weights } from "../weights.js";
import { GPT2Block } from "./block.js";
import { hubConfig, type GPT2Config } from "./config.js";

/** Everything but the head. */
export class GPT2Model extends Module {
  wte: Embedding;
  wpe: Embedding;
  drop: Dropout;
  h: GPT2Block[];
  ln_f: LayerNorm;

  constructor(config: GPT2Config, weights: Weights) {
    super();
    const { hiddenSize: C, numHiddenLayers, layerNormEps } = config;
    this.wte = weights.embedding("transformer.wte", config.vocabSize, C);
    this.wpe = weights.embedding("transformer.wpe", config.maxPositionEmbeddings, C);
    this.drop = new Dropout(config.embdPdrop);
    this.h = Array.from(
      { length: numHiddenLayers },
      (_, i) => new GPT2Block(config, i, `transformer.h.${i}`, weights),
    );
    this.ln_f = weights.layerNorm("transformer.ln_f", C, layerNormEps);
  }

  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "GPT2Model runs as part of GPT2LMHeadModel");
  }
}

export class GPT2LMHeadModel extends CausalLM {
  readonly config: GPT2Config & Record<string, unknown>;
  transformer: GPT2Model;
  lm_head: Linear;

  constructor(config: GPT2Config, weights: Weights) {
    super();
    this.config = config as GPT2Config & Record<string, unknown>;
    this.transformer = new GPT2Model(config, weights);
    this.lm_head = languageHead(this.transformer.wte, config.tieWordEmbeddings, weights);
  }

  inputEmbedding(): Embedding {
    return this.transformer.wte;
  }

  newCache(batch: number, capacity: number): KeyValueCache {
    const { numHiddenLayers, numAttentionHeads: heads, hiddenSize } = this.config;
    const shape = { batch, heads, headDim: hiddenSize / heads, device: this.device };
    return new KeyValueCache(numHiddenLayers, capacity, shape);
  }

  hubConfig(): Record<string, unknown> {
    return hubConfig(this.config);
  }

  hidden(ids: Tensor, { attentionMask, positionIds }: ForwardOptions = {}, cache?: KeyValueCache): Tensor {
    const start = cache?.length ?? 0;
    const T = checkedLength(ids, start, this.config.maxPositionEmbeddings);
    const { wte, wpe, drop, h, ln_f } = this.transformer;
    const positions = positionIds ?? arange(start + T, { start, device: this.device });
    const x = drop.forward(wte.forward(ids).add(wpe.forward(positions)));
    const checkpointed = this.gradientCheckpointing && cache === undefined && trains(this);
    const stream = chain(h, x, checkpointed, (block, y, i) =>
      through(block, GPT2Block.prototype.forward, y, attentionMask, cache?.layers[i]),
    );
    return ended(ln_f, stream);
  }
}
