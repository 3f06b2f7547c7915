/** The batcher answers requests after a step, or freeing one, has failed. */
import test from "ava";

import { checkGenerateOptions } from "../../src/models/generate-options.js";
import { Decoding } from "../../src/models/decoding.js";
import { Batcher, type Generation } from "../../src/serve/batcher.js";
import { smallLlama } from "../small-llama.js";

const generation: Generation = {
  prompts: [Int32Array.of(3, 4, 5)],
  seeds: [1],
  options: checkGenerateOptions("test", { maxNewTokens: 4, temperature: 1 }),
  adapter: null,
  ends: [],
};

/** Returns the number of tokens that a request gets. */
async function tokens(batcher: Batcher): Promise<number> {
  let last = 0;
  for await (const event of batcher.submit(generation)) last = event.tokens;
  return last;
}

test.serial("an error while a decoding is freed ends no request, and the batcher closes", async (t) => {
  const model = await smallLlama("cpu");
  const dispose = Decoding.prototype.dispose;
  let thrown = 0;
  Decoding.prototype.dispose = function (this: Decoding) {
    dispose.call(this);
    thrown++;
    throw new Error("it cannot be freed");
  };
  try {
    const batcher = new Batcher(model, { maxConcurrent: 4, maxQueue: 4, onLost: () => t.fail("not lost") });
    t.is(await tokens(batcher), 4);
    t.is(await tokens(batcher), 4);
    await batcher.close();
    t.true(thrown >= 2);
  } finally {
    Decoding.prototype.dispose = dispose;
    model.dispose();
  }
});
