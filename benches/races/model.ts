/** Our side of a race: the model of SmolLM2-135M's shape with random weights, and turns taken by lines on stdin. */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { llamaConfig } from "../../src/models/llama/config.js";
import { LlamaForCausalLM } from "../../src/models/llama/model.js";
import { FreshWeights } from "../../src/models/weights.js";

export const VOCABULARY = 49152;

export function model(): LlamaForCausalLM {
  const config = llamaConfig({
    model_type: "llama",
    vocab_size: VOCABULARY,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 0,
  });
  return new LlamaForCausalLM(config, new FreshWeights("cpu"));
}

/** The highest resident set so far, in MiB; null where the system has no /proc. */
function peakMiB(): number | null {
  try {
    const line = /^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
    return line === null ? null : Number(line[1]) / 1024;
  } catch {
    return null;
  }
}

/** A warm-up turn, a line {"ready": true}, then a turn for each line read. */
export async function race(turn: () => Promise<Record<string, unknown>>): Promise<void> {
  await turn();
  console.log(JSON.stringify({ ready: true }));
  for await (const _ of createInterface({ input: process.stdin })) {
    const start = performance.now();
    const result = await turn();
    console.log(JSON.stringify({ ms: performance.now() - start, peakMiB: peakMiB(), ...result }));
  }
}
