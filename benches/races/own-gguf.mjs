// Greedy generation from a GGUF file with the built package, prompt and decoding timed separately; the counterpart of peer_llama.py.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

import { loadModel } from "../../dist/index.js";

const [PROMPT, NEW] = [512, 96];
const [path] = process.argv.slice(2);
const model = await loadModel(path, { device: "cpu" });
// An end token would end the race early.
Object.assign(model.config, { eosTokenIds: [] });
const ids = Int32Array.from(
  { length: PROMPT },
  (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % model.config.vocabSize,
);

/** Generates `count` tokens after `prompt`. Returns the milliseconds to the first token, and the rate of the others. */
async function generated(prompt, count) {
  const start = performance.now();
  let [first, tokens] = [0, 0];
  for await (const _ of model.generate(prompt, { maxNewTokens: count, temperature: 0 })) {
    if (tokens++ === 0) first = performance.now();
  }
  return {
    promptMs: first - start,
    tokensPerSecond: ((tokens - 1) / (performance.now() - first)) * 1000,
  };
}

async function turn() {
  const start = performance.now();
  const { promptMs } = await generated(ids, 1);
  const { tokensPerSecond } = await generated(ids.subarray(0, 16), NEW + 1);
  const peak = /^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  const peakMiB = peak === null ? null : Number(peak[1]) / 1024;
  console.log(JSON.stringify({ ms: performance.now() - start, promptMs, tokensPerSecond, peakMiB }));
}

await generated(ids.subarray(0, 16), 8);
console.log(JSON.stringify({ ready: true }));
for await (const _ of createInterface({ input: process.stdin })) await turn();
