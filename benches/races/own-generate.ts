/** Greedy generation, with prompt and decoding timed separately; the counterpart of peer_generate.py. */
import { parseArgs } from "node:util";

import { setMatmulPrecision } from "../../src/tensor/scope.js";
import { model as made } from "./model.js";
import { VOCABULARY } from "./shapes.js";
import { hashedIds } from "./step.js";
import { race } from "./turns.js";

const { values } = parseArgs({ options: { dtype: { type: "string", default: "f32" } } });
const [PROMPT, NEW] = [64, 128];
const dtype = values.dtype === "bf16" ? "bf16" : "f32";
if (dtype === "bf16") setMatmulPrecision("bf16");
const model = made({ dtype });
model.eval();
// An end token would end the race early.
Object.assign(model.config, { eosTokenIds: [] });
const prompt = hashedIds(PROMPT, VOCABULARY);

await race(async () => {
  const start = performance.now();
  let first = 0;
  let tokens = 0;
  for await (const _ of model.generate(prompt, { maxNewTokens: NEW })) {
    if (tokens++ === 0) first = performance.now();
  }
  const decoding = performance.now() - first;
  return { promptMs: first - start, tokensPerSecond: ((tokens - 1) / decoding) * 1000 };
});
