/** A small adapted Llama with random weights, for tests of the resources of training rather than of its results. */
import { inject } from "../src/lora/index.js";
import { LlamaForCausalLM, manualSeed, scope, tensor, type Device } from "../src/index.js";
import { AdamW } from "../src/optim/index.js";

export const VOCABULARY = 97;

export async function smallLlama(
  device: Device,
  positions = 512,
  loraDropout = 0,
): Promise<LlamaForCausalLM> {
  manualSeed(3);
  const config = {
    vocab_size: VOCABULARY,
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: positions,
    tie_word_embeddings: true,
    eos_token_id: 0,
  };
  const model = LlamaForCausalLM.fromConfig(config, { device });
  await inject(model, { r: 4, loraAlpha: 8, loraDropout, targetModules: "all-linear" });
  return model.train();
}

export function adamOf(model: LlamaForCausalLM): AdamW {
  return new AdamW(
    [...model.parameters()].filter((p) => p.requiresGrad),
    { lr: 1e-3 },
  );
}

/** Records one optimizer step over `length` tokens; nothing is read back. */
export function recordStep(model: LlamaForCausalLM, optimizer: AdamW, length: number): void {
  const ids = Int32Array.from({ length }, (_, i) => (i * 31 + length) % VOCABULARY);
  scope(() => {
    const input = tensor(ids, { shape: [1, length], device: model.device });
    model
      .loss(input, ids, { reduction: "sum" })
      .mul(1 / Math.max(length - 1, 1))
      .backward();
  });
  optimizer.stepClipped(1).dispose();
  optimizer.zeroGrad();
}
