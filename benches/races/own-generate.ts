/** Greedy generation of ours, timed: the twin of peer_generate.py. */
import { model as made, VOCABULARY } from "./model.js";
import { hashedIds } from "./step.js";
import { race } from "./turns.js";

const [PROMPT, NEW] = [64, 128];
const model = made();
model.eval();
// An end token would cut the race short.
Object.assign(model.config, { eosTokenIds: [] });
const prompt = hashedIds(PROMPT, VOCABULARY);

await race(async () => {
  const start = performance.now();
  let tokens = 0;
  for await (const _ of model.generate(prompt, { maxNewTokens: NEW })) tokens++;
  return { tokensPerSecond: tokens / ((performance.now() - start) / 1000) };
});
