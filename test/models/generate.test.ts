/** Generation ends as it is told, and leaves nothing behind. */
import test from "ava";

import { memory, tensor, type GenerateOptions } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { smallLlama } from "../small-llama.js";

const PROMPT = Int32Array.of(5, 17, 3);

for (const device of testDevices()) {
  const adapted = async (eosTokenIds: number[] = []): ReturnType<typeof smallLlama> => {
    const model = await smallLlama(device);
    Object.assign(model.config, { eosTokenIds });
    return model;
  };
  const tokens = async (
    model: Awaited<ReturnType<typeof smallLlama>>,
    options: GenerateOptions,
    enough = Infinity,
  ): Promise<number[]> => {
    const list: number[] = [];
    for await (const { token } of model.generate(PROMPT, options)) {
      list.push(token);
      if (list.length >= enough) break;
    }
    return list;
  };

  test.serial(
    `on ${device}: it ends at its count, at an end token, at a break, at an abort, and leaves no tensor`,
    async (t) => {
      const model = await adapted();
      const whole = await tokens(model, { maxNewTokens: 9 });
      const { tensors } = memory(device);
      t.is(whole.length, 9);
      t.deepEqual(await tokens(model, { maxNewTokens: 0 }), []);
      t.deepEqual(await tokens(model, { maxNewTokens: 1 }), whole.slice(0, 1));
      t.deepEqual(await tokens(model, { maxNewTokens: 9 }, 4), whole.slice(0, 4));
      const controller = new AbortController();
      const aborted = async (): Promise<void> => {
        for await (const _ of model.generate(PROMPT, { signal: controller.signal })) {
          controller.abort(new Error("enough"));
        }
      };
      await t.throwsAsync(aborted, { message: "enough" });
      // An end token is not yielded, wherever it first comes.
      const end = whole.at(-1) as number;
      Object.assign(model.config, { eosTokenIds: [end] });
      t.deepEqual(await tokens(model, { maxNewTokens: 9 }), whole.slice(0, whole.indexOf(end)));
      t.true(memory(device).tensors <= tensors);
      model.dispose();
    },
  );

  test.serial(
    `on ${device}: sampling at no temperature to speak of, or of one token, is greedy`,
    async (t) => {
      const model = await adapted();
      const greedy = await tokens(model, { maxNewTokens: 6 });
      t.deepEqual(await tokens(model, { maxNewTokens: 6, temperature: 1e-9 }), greedy);
      t.deepEqual(await tokens(model, { maxNewTokens: 6, temperature: 2, topK: 1 }), greedy);
      const { tensors } = memory(device);
      await tokens(model, { maxNewTokens: 6, temperature: 1 });
      t.true(memory(device).tensors <= tensors);
      model.dispose();
    },
  );

  test.serial(`on ${device}: a logit that is NaN is refused, however tokens are chosen`, async (t) => {
    const model = await adapted();
    const { weight } = model.model.norm;
    const sick = tensor(new Float32Array(weight.size).fill(NaN), { device });
    weight.copy(sick);
    sick.dispose();
    let tensors = 0;
    for (const temperature of [0, 1, 0, 1]) {
      await t.throwsAsync(tokens(model, { temperature }), {
        code: "ERR_NOT_FINITE",
        message: "generate: the logit of token 0 is NaN",
      });
      // The first makes the model's tables of rotation.
      tensors ||= memory(device).tensors;
      t.true(memory(device).tensors <= tensors);
    }
    model.dispose();
  });
}
