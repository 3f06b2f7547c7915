/** Times a training step of GPT-2 small, adapted as in the paper (queries and values of every `c_attn`); the counterpart of peer_gpt2.py. */
import { GPT2LMHeadModel, lora } from "../../src/index.js";
import { raceSteps } from "./step.js";

const VOCABULARY = 50257;
const config = {
  vocab_size: VOCABULARY,
  n_positions: 1024,
  n_embd: 768,
  n_layer: 12,
  n_head: 12,
  attn_pdrop: 0,
  embd_pdrop: 0,
  resid_pdrop: 0,
};
const model = GPT2LMHeadModel.fromConfig(config, { device: "cpu" });
for (const { attn } of model.transformer.h) {
  attn.c_attn = lora.MergedLinear.fromBase(attn.c_attn, {
    r: 4,
    loraAlpha: 32,
    enableLora: [true, false, true],
    mergeWeights: false,
  });
}
lora.markOnlyLoraAsTrainable(model);
await raceSteps(model, { rows: 4, length: 256, vocabulary: VOCABULARY });
