/** Greedy generation of ours, timed: the twin of peer_generate.py. */
import { model as made, race, VOCABULARY } from "./model.js";

const [PROMPT, NEW] = [64, 128];
const model = made();
model.eval();
// An end token would cut the race short.
Object.assign(model.config, { eosTokenIds: [] });
const prompt = Int32Array.from(
  { length: PROMPT },
  (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % VOCABULARY,
);

await race(async () => {
  const start = performance.now();
  let tokens = 0;
  for await (const _ of model.generate(prompt, { maxNewTokens: NEW })) tokens++;
  return { tokensPerSecond: tokens / ((performance.now() - start) / 1000) };
});
