/**
 * A real pretrained model: the stories260k Llama, in the folder that LOWRANK_STORIES260K names. The expected ids,
 * loss and greedy text come from transformers.
 */
import test from "ava";

import { loadModel, noGrad, scope, tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";

const folder = process.env["LOWRANK_STORIES260K"];
const SENTENCE = "Once upon a time, there was a little girl named Lily.";
const IDS = "1 403 407 261 378 432 383 286 261 376 298 315 421 395 317 426";
const GREEDY =
  " She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.";

if (folder === undefined) {
  test("stories260k", (t) => {
    t.log("not run: set LOWRANK_STORIES260K to the model's folder");
    t.pass();
  });
} else {
  for (const device of testDevices()) {
    test.serial(`ids, loss and greedy text on ${device}`, async (t) => {
      const model = await loadModel<"causal-lm">(folder, { device });
      const ids = model.tokenizer!.encode(SENTENCE);
      t.is([...ids].join(" "), IDS);
      t.is(model.tokenizer!.decode(ids), SENTENCE);
      const input = tensor(ids, { shape: [1, ids.length], device });
      const { loss } = model.forward(input, { labels: input });
      const value = await loss!.item();
      t.log(`loss ${value}`);
      t.true(Math.abs(value - 0.1001) <= 0.0002);

      let text = "";
      for await (const piece of model.generate(SENTENCE, { maxNewTokens: 50 })) text += piece.text;
      t.is(text.slice(0, GREEDY.length), GREEDY);
      model.dispose();
    });

    test.serial(`logits with the cache equal those without it on ${device}`, async (t) => {
      const model = await loadModel<"causal-lm">(folder, { device });
      model.eval();
      const ids = [...model.tokenizer!.encode(SENTENCE)];
      const cache = model.createCache(1, 64);
      let fed = Int32Array.from(ids);
      let worst = 0;
      for (let step = 0; step < 20; step++) {
        const [cached, whole] = noGrad(() =>
          scope(() => {
            const next = model.computeHidden(tensor(fed, { shape: [1, fed.length], device }), {}, cache);
            const all = model.computeHidden(tensor(Int32Array.from(ids), { shape: [1, ids.length], device }));
            return [
              model.lm_head.forward(next.slice(1, -1)),
              model.lm_head.forward(all.slice(1, -1)),
            ] as const;
          }),
        );
        const [a, b] = (await Promise.all([cached.data(), whole.data()])) as [Float32Array, Float32Array];
        const largest = b.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
        worst = Math.max(worst, a.reduce((m, v, i) => Math.max(m, Math.abs(v - b[i]!)), 0) / largest);
        const [x, y] = [a.indexOf(Math.max(...a)), b.indexOf(Math.max(...b))];
        t.is(x, y);
        ids.push(x);
        fed = Int32Array.of(x);
        cached.dispose();
        whole.dispose();
      }
      t.log(`logits differ by ${worst} of the largest`);
      // Two orders of summation in f32: a few hundred roundings of 6e-8 at most.
      t.true(worst <= 1e-5);
      cache.dispose();
      model.dispose();
    });
  }
}
