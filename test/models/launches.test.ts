/** The number of kernel launches of a block on a GPU, forward and backward: each costs the host some microseconds. */
import test from "ava";

import { LlamaForCausalLM, lora, manualSeed, scope, synchronize, tensor } from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { testDevices } from "../devices.js";

/** Tokens of a step: the usual 4 × 512. */
const LENGTH = 2048;

/** Returns launches by kernel of a step over `layers` blocks of SmolLM2's shape, forward and then backward. */
async function launches(layers: number): Promise<[Record<string, number>, Record<string, number>]> {
  const device = "meta:gpu";
  const config = {
    vocab_size: 1024,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: layers,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_position_embeddings: LENGTH,
    tie_word_embeddings: true,
    eos_token_id: 0,
  };
  const model = LlamaForCausalLM.fromConfig(config, { device });
  await lora.inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
  model.train();
  const ids = Int32Array.from({ length: LENGTH }, (_, i) => i % 1024);
  const step = (): [Record<string, number>, Record<string, number>] =>
    scope(() => {
      session().countLaunches(device, true);
      const loss = model.loss(tensor(ids, { shape: [1, LENGTH], device }), ids, { reduction: "sum" });
      const forward = session().countLaunches(device, true);
      loss.backward();
      return [forward, session().countLaunches(device, false)];
    });
  // The first step allocates the gradients, later ones accumulate.
  step();
  const counted = step();
  model.dispose();
  return counted;
}

/** Returns the GPU submissions for `tokens` decoded tokens of a model with some hundred launches a token. */
async function submissions(tokens: number): Promise<number> {
  const device = "gpu";
  const config = {
    vocab_size: 97,
    // So small that no submission ends because of its amount of work.
    hidden_size: 16,
    intermediate_size: 16,
    num_hidden_layers: 8,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 256,
  };
  manualSeed(1);
  const model = LlamaForCausalLM.fromConfig(config, { device });
  Object.assign(model.config, { eosTokenIds: [] });
  const decoding = async (maxNewTokens: number): Promise<void> => {
    let made = 0;
    for await (const _ of model.generate(Int32Array.of(5, 6, 7), { maxNewTokens })) made++;
    if (made !== maxNewTokens) throw new Error(`${made} tokens`);
  };
  await decoding(2);
  await synchronize(device);
  const before = session().submissions(device);
  await decoding(tokens);
  await synchronize(device);
  const made = session().submissions(device) - before;
  model.dispose();
  return made;
}

test.serial("a decoded token is one submission to a GPU at most", async (t) => {
  if (!testDevices().includes("gpu")) {
    t.log("not run: no GPU is here");
    return t.pass();
  }
  const found: number[] = [];
  // On a busy machine a software GPU looks slow and gets smaller submissions, so take the best of several counts.
  while (found.length < 5 && !found.some((count) => count <= 32)) {
    const [few, more] = [await submissions(8), await submissions(40)];
    t.log(`${few} for 8 tokens, ${more} for 40`);
    t.true(few > 0);
    found.push(more - few);
  }
  t.true(Math.min(...found) <= 32);
});

test("a Llama block with low-rank paths on all of its linears", async (t) => {
  if (!testDevices().includes("gpu")) {
    t.log("not run: no GPU is here, whose limits the plans ask for");
    return t.pass();
  }
  const [two, three] = [await launches(2), await launches(3)];
  const perBlock = [0, 1].map((pass) => {
    const [less, more] = [two[pass], three[pass]] as [Record<string, number>, Record<string, number>];
    const each = Object.entries(more).map(
      ([kernel, count]) => [kernel, count - (less[kernel] ?? 0)] as const,
    );
    const own = each.filter(([, count]) => count > 0);
    t.log(own.map(([kernel, count]) => `${kernel} ${count}`).join(", "));
    return own.reduce((sum, [, count]) => sum + count, 0);
  });
  // 7 and 19 of these sum up the parts of long sums with small results: the low-rank paths.
  t.deepEqual(perBlock, [26, 57]);
});
