/** How many launches a block takes on a GPU, forward and backward: each costs its host some microseconds. */
import test from "ava";

import { LlamaForCausalLM, lora, scope, tensor } from "../../src/index.js";
import { session } from "../../src/native.js";
import { testDevices } from "../devices.js";

const LENGTH = 64;

/** Launches by kernel of a step over `layers` blocks of SmolLM2's shape, and then of its backward. */
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
  const ids = Int32Array.from({ length: LENGTH }, (_, i) => i);
  const step = (): [Record<string, number>, Record<string, number>] =>
    scope(() => {
      session().countLaunches(device, true);
      const loss = model.loss(tensor(ids, { shape: [1, LENGTH], device }), ids, { reduction: "sum" });
      const forward = session().countLaunches(device, true);
      loss.backward();
      return [forward, session().countLaunches(device, false)];
    });
  // Gradients are made first, and added to later.
  step();
  const counted = step();
  model.dispose();
  return counted;
}

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
  t.deepEqual(perBlock, [19, 38]);
});
