/** The residual stream through a model's blocks. */
import test from "ava";

import { scope, tensor } from "../../src/index.js";
import { LlamaBlock } from "../../src/models/llama/block.js";
import { smallLlama, VOCABULARY } from "../small-llama.js";

for (const checkpointed of [false, true]) {
  test.serial(`a user-defined forward of a block is called: checkpointing ${checkpointed}`, async (t) => {
    const model = await smallLlama("cpu", 16);
    model.gradientCheckpointing = checkpointed;
    const ids = Int32Array.from({ length: 9 }, (_, i) => (i * 31) % VOCABULARY);
    const step = async (): Promise<number[]> => {
      for (const parameter of model.parameters()) parameter.grad = null;
      const loss = scope(() => {
        const loss = model.loss(tensor(ids, { shape: [1, 9], device: "cpu" }), ids);
        loss.backward();
        return loss.detach();
      });
      const gradients = [...model.parameters()].flatMap(({ grad }) => (grad === null ? [] : [grad.data()]));
      return [await loss.item(), ...(await Promise.all(gradients)).flatMap((values) => [...values])];
    };
    const before = await step();
    const calls: number[] = [];
    for (const [i, block] of model.model.layers.entries()) {
      block.forward = (...given) => {
        calls.push(i);
        return LlamaBlock.prototype.forward.apply(block, given);
      };
    }
    const after = await step();
    t.deepEqual(calls.slice(0, 2), [0, 1]);
    t.true(before.length > 100);
    const largest = Math.max(...before.map(Math.abs));
    // A residual sum that is not fused with its norm has the same bits; gradients are added in another order.
    t.is(after[0], before[0]);
    t.true(before.every((value, i) => Math.abs((after[i] as number) - value) <= 1e-6 * largest));
    model.dispose();
  });
}
