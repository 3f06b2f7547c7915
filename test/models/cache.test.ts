/** Decoding with a key-value cache equals a forward pass over the whole text. */
import { join } from "node:path";
import test from "ava";

import { loadModel, memory, noGrad, scope, tensor, type CausalLM } from "../../src/index.js";
import type { KeyValueCache } from "../../src/models/cache.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { goldenModel, tinyModel } from "../hashed.js";
import { goldens } from "../parity/goldens.js";
import { smallLlama } from "../small-llama.js";

const TEXT = "the whale swam on and on, and the sea was wide.";
/** Ids from the model's tokenizer, or arbitrary ids for a model without one. */
const MODELS = {
  llama: { folder: tinyModel(), prompt: (model: CausalLM) => model.tokenizer?.encode(TEXT) as Int32Array },
  gpt2: {
    folder: goldenModel(join(goldens, "families", "gpt2")),
    prompt: () => Int32Array.from({ length: 24 }, (_, i) => (i * 29 + 5) % 97),
  },
};

/** Returns the logits after the last of `ids`. */
async function last(model: CausalLM, ids: Int32Array, cache?: KeyValueCache): Promise<Float32Array> {
  const row = noGrad(() =>
    scope(() => {
      const input = tensor(ids, { shape: [1, ids.length], device: model.device });
      const hidden = model.computeHidden(input, {}, cache);
      return model.lm_head.forward(hidden.slice(1, ids.length - 1)).reshape(-1);
    }),
  );
  const data = (await row.data()) as Float32Array;
  row.dispose();
  return data;
}

const cases = testDevices().flatMap((device) =>
  Object.entries(MODELS).map(([name, model]) => ({ name, device, ...model })),
);
for (const { name, device, folder, prompt: idsOf } of cases) {
  test(`${name} on ${device}: logits with a cache and without differ by less than 1e-5 of the largest`, async (t) => {
    const model = await loadModel<"causal-lm">(folder, { device });
    const ids = idsOf(model);
    const cache = model.createCache(1, ids.length);
    // A prompt, a few tokens at once, then single tokens.
    const cuts = [12, 15, ...Array.from({ length: ids.length - 15 }, (_, i) => 16 + i)];
    let at = 0;
    for (const end of cuts) {
      const [ours, whole] = [
        await last(model, ids.slice(at, end), cache),
        await last(model, ids.slice(0, end)),
      ];
      const largest = Math.max(...whole.map(Math.abs));
      const off = Math.max(...whole.map((value, i) => Math.abs(value - (ours[i] as number))));
      t.true(off < 1e-5 * largest, `after ${end} tokens the logits are off by ${off / largest}`);
      at = end;
    }
    cache.dispose();
    model.dispose();
  });

  test(`${name} on ${device}: generation equals greedy decoding by whole forward passes`, async (t) => {
    const model = await loadModel<"causal-lm">(folder, { device });
    const prompt = idsOf(model).slice(0, 12);
    const tokens: number[] = [];
    for await (const piece of model.generate(prompt, { maxNewTokens: 12 })) tokens.push(piece.token);
    const expected: number[] = [];
    while (expected.length < 12) {
      const logits = await last(model, Int32Array.from([...prompt, ...expected]));
      const token = logits.indexOf(Math.max(...logits));
      if (model.config.eosTokenIds.includes(token)) break;
      expected.push(token);
    }
    t.deepEqual(tokens, expected);
    model.dispose();
  });
}

for (const device of testDevices()) {
  test.serial(`on ${device}: a cache that grows is bit-identical to one of full capacity`, async (t) => {
    const model = await smallLlama(device, 900);
    model.eval();
    const decoded = async (cache: KeyValueCache): Promise<number[]> => {
      const bits: number[] = [];
      // Crosses three sizes of the buffers, by one token and by many.
      for (const [i, count] of [250, 5, 1, 1, 200, 1, 300, 1].entries()) {
        const ids = Int32Array.from({ length: count }, (_, k) => (k * 31 + i) % 97);
        const logits = await last(model, ids, cache);
        bits.push(...new Int32Array(logits.buffer, logits.byteOffset, logits.length));
      }
      return bits;
    };
    const growing = model.createCache(1, 900);
    const grown = await decoded(growing);
    growing.dispose();
    // The first cache creates the model's rotary tables.
    const { live } = await atRest(device);
    const roomy = model.createCache(1, 900);
    for (const layer of roomy.layers) layer.reserveBuffers(900);
    t.deepEqual(grown, await decoded(roomy));
    roomy.dispose();
    t.true(memory(device).live <= live);
    model.dispose();
  });
}

test.serial("a cache allocates blocks, not the longest possible text", async (t) => {
  const model = await smallLlama("cpu", 512);
  const { live } = await atRest("cpu");
  const cache = model.createCache(1, 500_000);
  await last(model, Int32Array.of(1, 2, 3), cache);
  // Two layers, keys and values, 256 tokens of two heads of 8, and the rotary tables.
  t.true(memory("cpu").live - live < 2 * 2 * 256 * 16 * 4 + 32 * 1024, `${memory("cpu").live - live}`);
  cache.dispose();
  model.dispose();
});
