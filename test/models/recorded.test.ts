/** A block that the engine records in one call is bit-identical to the block's forward. */
import test from "ava";

import { lora, noGrad, scope, tensor } from "../../src/index.js";
import { Linear } from "../../src/lora/layers/linear.js";
import { LlamaMLP } from "../../src/models/llama/mlp.js";
import type { LlamaForCausalLM } from "../../src/models/llama/model.js";
import { session } from "../../src/native/binding.js";
import { testDevices } from "../devices.js";
import { smallLlama, VOCABULARY } from "../small-llama.js";

/** Returns logits after a prompt and after each of some tokens, and the number of blocks recorded in one call. */
async function decoded(model: LlamaForCausalLM): Promise<[logits: number[][], whole: number]> {
  const native = session() as { decoderBlock: (...given: unknown[]) => number[] };
  const own = native.decoderBlock;
  let whole = 0;
  native.decoderBlock = (...given) => {
    whole++;
    return own(...given);
  };
  const cache = model.createCache(1, 16);
  const logits: number[][] = [];
  try {
    for (const ids of [[5, 17, 3, 96, 4], [8], [61]]) {
      const row = noGrad(() =>
        scope(() => {
          const input = tensor(Int32Array.from(ids), { shape: [1, ids.length], device: model.device });
          return model.lm_head.forward(model.computeHidden(input, {}, cache));
        }),
      );
      logits.push([...(await row.data())]);
      row.dispose();
    }
  } finally {
    native.decoderBlock = own;
    cache.dispose();
  }
  return [logits, whole];
}

for (const device of testDevices()) {
  test.serial(`on ${device}: with adapters, without, and with some merged`, async (t) => {
    const model = await smallLlama(device);
    model.eval();
    const adapted = [...model.namedModules()].flatMap(([, module]) =>
      module instanceof Linear ? [module] : [],
    );
    for (const [i, layer] of adapted.entries()) {
      const { loraB } = layer as { loraB: NonNullable<Linear["loraB"]> };
      const values = Float32Array.from({ length: loraB.size }, (_, k) => Math.sin(k + i) / 8);
      loraB.copy(tensor(values, { shape: loraB.shape, device }));
    }
    const both = async (what: string, blocks: number): Promise<number[][]> => {
      const [logits, whole] = await decoded(model);
      t.is(whole, 3 * blocks, what);
      let calls = 0;
      for (const { mlp } of model.model.layers) {
        mlp.forward = (x) => {
          calls++;
          return LlamaMLP.prototype.forward.call(mlp, x);
        };
      }
      const [apart, none] = await decoded(model);
      for (const { mlp } of model.model.layers) Reflect.deleteProperty(mlp, "forward");
      t.deepEqual([none, calls], [0, 6], what);
      t.deepEqual(logits, apart, what);
      t.is(logits.flat().length, 7 * VOCABULARY);
      return logits;
    };
    const withAdapters = await both("adapted", 2);
    const without = await lora.withoutAdapters(model, () => both("without", 2));
    t.notDeepEqual(withAdapters, without);
    adapted[1]?.merge();
    adapted.at(-1)?.merge();
    await both("some merged", 2);
    for (const layer of adapted) layer.unmerge();
    t.deepEqual(await both("unmerged", 2), withAdapters);
    // A user-defined forward: that block is not recorded in one call.
    const { self_attn } = model.model.layers[0] as (typeof model.model.layers)[0];
    self_attn.o_proj.forward = (x) => Linear.prototype.forward.call(self_attn.o_proj, x);
    t.deepEqual((await decoded(model))[1], 3);
    model.dispose();
  });
}
