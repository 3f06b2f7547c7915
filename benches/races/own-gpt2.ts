/**
 * One training step of GPT-2 small as the paper adapts it, queries and values of every `c_attn`,
 * timed: the twin of peer_gpt2.py.
 */
import { markOnlyLoraAsTrainable, MergedLinear } from "../../src/lora/index.js";
import { gpt2Config } from "../../src/models/gpt2/config.js";
import { GPT2LMHeadModel } from "../../src/models/gpt2/model.js";
import { FreshWeights } from "../../src/models/weights.js";
import { raceSteps } from "./step.js";

const VOCABULARY = 50257;
const config = gpt2Config({
  model_type: "gpt2",
  vocab_size: VOCABULARY,
  n_positions: 1024,
  n_embd: 768,
  n_layer: 12,
  n_head: 12,
  attn_pdrop: 0,
  embd_pdrop: 0,
  resid_pdrop: 0,
});
const model = new GPT2LMHeadModel(config, new FreshWeights("cpu"));
for (const { attn } of model.transformer.h) {
  attn.c_attn = MergedLinear.fromBase(attn.c_attn, {
    r: 4,
    loraAlpha: 32,
    enableLora: [true, false, true],
    mergeWeights: false,
  });
}
markOnlyLoraAsTrainable(model);
await raceSteps(model, { rows: 4, length: 256, vocabulary: VOCABULARY });
