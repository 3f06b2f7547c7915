/** Biases and penalties of logits, against their definition written out, and their edges. */
import test from "ava";

import { noGrad, scope, tensor, type CausalLM, type GenerateOptions } from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { smallLlama } from "../small-llama.js";

const PROMPT = Int32Array.of(5, 17, 3, 5);
const TOKENS = 24;

async function generated(model: CausalLM, options: GenerateOptions): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { token } of model.generate(PROMPT, { maxNewTokens: TOKENS, ...options }))
    tokens.push(token);
  return tokens;
}

/** Takes the most likely token after shifting the logits of a whole forward pass, `TOKENS` times. */
async function defined(
  model: CausalLM,
  { frequencyPenalty = 0, presencePenalty = 0, logitBias = {} }: GenerateOptions,
): Promise<number[]> {
  const chosen: number[] = [];
  while (chosen.length < TOKENS) {
    const ids = Int32Array.from([...PROMPT, ...chosen]);
    const { device } = model;
    const logits = noGrad(() =>
      scope(() => model.eval().forward(tensor(ids, { shape: [1, ids.length], device })).logits),
    );
    const V = logits.shape.at(-1) as number;
    const last = ((await logits.data()) as Float32Array).slice(-V);
    logits.dispose();
    const shifted = Array.from(last, (logit, j) => {
      const count = chosen.filter((token) => token === j).length;
      return logit + (logitBias[j] ?? 0) - count * frequencyPenalty - (count > 0 ? presencePenalty : 0);
    });
    chosen.push(shifted.indexOf(Math.max(...shifted)));
  }
  return chosen;
}

for (const device of testDevices()) {
  test.serial(`on ${device}: tokens are chosen as the definition says`, async (t) => {
    const model = await smallLlama(device);
    Object.assign(model.config, { eosTokenIds: [] });
    const plain = await generated(model, {});
    const first = plain[0] as number;
    const cases: GenerateOptions[] = [
      { frequencyPenalty: 0.1 },
      { presencePenalty: 0.5 },
      { frequencyPenalty: 0.1, presencePenalty: 0.5 },
      { frequencyPenalty: 0.1, presencePenalty: -0.5 },
      { logitBias: { [first]: -100 } },
      { logitBias: { [first]: 0.01, 3: 0.5 }, frequencyPenalty: 0.05, presencePenalty: 0.1 },
    ];
    const all = [plain];
    for (const options of cases) {
      const tokens = await generated(model, options);
      t.deepEqual(tokens, await defined(model, options), JSON.stringify(options));
      all.push(tokens);
    }
    t.is(new Set(all.map((tokens) => tokens.join())).size, all.length);
    model.dispose();
  });

  test.serial(
    `on ${device}: a bias of 100 decides, sampled or not; log-probabilities stay the model's`,
    async (t) => {
      const model = await smallLlama(device);
      Object.assign(model.config, { eosTokenIds: [] });
      for (const temperature of [0, 1])
        t.deepEqual(
          await generated(model, { temperature, logitBias: { 7: 100 } }),
          Array.from({ length: TOKENS }, () => 7),
        );
      const { tensors } = await atRest(device);
      for await (const piece of model.generate(PROMPT, {
        maxNewTokens: 3,
        logitBias: { 7: 100 },
        logprobs: true,
      }))
        t.true((piece.logprob as number) < -1);
      // Only the chosen tokens count, not the prompt's.
      t.deepEqual(
        (await generated(model, { maxNewTokens: 1, presencePenalty: 2 })).slice(0, 1),
        (await generated(model, { maxNewTokens: 1 })).slice(0, 1),
      );
      t.is((await atRest(device)).tensors, tensors);
      model.dispose();
    },
  );
}
