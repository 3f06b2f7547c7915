/** Generation ends as its options say, and leaves nothing behind. */
import test from "ava";

import {
  full,
  LowrankError,
  manualSeed,
  memory,
  noGrad,
  scope,
  tensor,
  type GenerateOptions,
  type Piece,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { smallLlama } from "../small-llama.js";

const PROMPT = Int32Array.of(5, 17, 3);
const TEXT = Int32Array.from({ length: 9 }, (_, i) => i + 1);

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
    `on ${device}: generation ends at its limit, at an end token, at a break, at an abort, and leaves no tensor`,
    async (t) => {
      const model = await adapted();
      const whole = await tokens(model, { maxNewTokens: 9 });
      const { tensors } = await atRest(device);
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
      // An end token is not yielded, at any position.
      const end = whole.at(-1) as number;
      Object.assign(model.config, { eosTokenIds: [end] });
      t.deepEqual(await tokens(model, { maxNewTokens: 9 }), whole.slice(0, whole.indexOf(end)));
      t.true(memory(device).tensors <= tensors);
      model.dispose();
    },
  );

  test.serial(
    `on ${device}: sampling at a temperature close to 0, or from one token, is greedy`,
    async (t) => {
      const model = await adapted();
      const greedy = await tokens(model, { maxNewTokens: 6 });
      t.deepEqual(await tokens(model, { maxNewTokens: 6, temperature: 1e-9 }), greedy);
      t.deepEqual(await tokens(model, { maxNewTokens: 6, temperature: 2, topK: 1 }), greedy);
      const { tensors } = await atRest(device);
      await tokens(model, { maxNewTokens: 6, temperature: 1 });
      t.true(memory(device).tensors <= tensors);
      model.dispose();
    },
  );

  test.serial(`on ${device}: a logit that is NaN is refused by every way of sampling`, async (t) => {
    const model = await adapted();
    const { weight } = model.model.norm;
    const sick = tensor(new Float32Array(weight.size).fill(NaN), { device });
    weight.copy(sick);
    sick.dispose();
    let tensors = 0;
    for (const [temperature, repetitionPenalty] of [[0], [1], [0, 2], [1, 2], [0], [1]]) {
      await t.throwsAsync(tokens(model, { temperature, repetitionPenalty }), {
        code: "ERR_NOT_FINITE",
        message: "generate: the logit of token 0 is NaN",
      });
      // The first generation creates the model's rotary tables.
      tensors ||= (await atRest(device)).tensors;
      t.true(memory(device).tensors <= tensors);
    }
    model.dispose();
  });

  test.serial(`on ${device}: log-probabilities are the model's, however tokens are sampled`, async (t) => {
    const model = await adapted();
    const options = { maxNewTokens: 6, temperature: 1.7, topK: 20, repetitionPenalty: 1.3, seed: 4 };
    const plain = await tokens(model, options);
    const pieces: Piece[] = [];
    for await (const piece of model.generate(PROMPT, { ...options, logprobs: true })) pieces.push(piece);
    t.deepEqual(
      pieces.map(({ token }) => token),
      plain,
    );
    t.true(pieces.every((piece) => !("topLogprobs" in piece)));
    const text = Int32Array.from([...PROMPT, ...plain]);
    const logits = noGrad(() =>
      scope(() => model.eval().forward(tensor(text, { shape: [1, text.length], device })).logits),
    );
    const values = (await logits.data()) as Float32Array;
    logits.dispose();
    const V = values.length / text.length;
    for (const [i, { token, logprob }] of pieces.entries()) {
      const row = values.subarray((PROMPT.length - 1 + i) * V, (PROMPT.length + i) * V);
      const largest = Math.max(...row);
      const sum = row.reduce((total, one) => total + Math.exp(one - largest), 0);
      const expected = row[token]! - largest - Math.log(sum);
      t.true(Math.abs(logprob! - expected) < 1e-4, `${logprob} is not ${expected}`);
    }
    const { tensors } = await atRest(device);
    for await (const piece of model.generate(PROMPT, { maxNewTokens: 1, logprobs: 1000 })) {
      t.is(piece.topLogprobs?.length, V);
      t.is(piece.topLogprobs?.[0]?.logprob, piece.logprob);
    }
    for await (const _ of model.generate(PROMPT, { maxNewTokens: 9, logprobs: 2 })) break;
    t.is((await atRest(device)).tensors, tensors);
    const refused = async (logprobs: number): Promise<void> => {
      for await (const _ of model.generate(PROMPT, { logprobs })) return;
    };
    await t.throwsAsync(() => refused(-1), {
      code: "ERR_OPTION",
      message: /true, false or a whole number/,
    });
    model.dispose();
  });
}

test("options are validated before anything runs", async (t) => {
  const model = await smallLlama("cpu");
  const refused = async (prompt: unknown, options: unknown): Promise<string> => {
    const pieces = model.generate(prompt as Int32Array, options as GenerateOptions);
    const error = await t.throwsAsync(async () => pieces.next(), { instanceOf: LowrankError });
    return `${(error as LowrankError).code} ${error?.message}`;
  };
  const options: [unknown, string][] = [
    [{ maxNewTokens: "3" }, 'maxNewTokens must be a whole number of at least 0, got "3"'],
    [{ maxNewTokens: 1.5 }, "maxNewTokens must be a whole number of at least 0, got 1.5"],
    [{ maxNewTokens: -1 }, "maxNewTokens must be a whole number of at least 0, got -1"],
    [{ temperature: NaN }, "temperature must be a number of at least 0, got NaN"],
    [{ temperature: Infinity }, "temperature must be a number of at least 0, got Infinity"],
    [{ topK: 2.5 }, "topK must be a whole number of at least 0, got 2.5"],
    [{ topP: 0 }, "topP must be a number above 0 and at most 1, got 0"],
    [{ topP: null }, "topP must be a number above 0 and at most 1, got null"],
    [{ minP: 1.5 }, "minP must be a number from 0 to 1, got 1.5"],
    [{ repetitionPenalty: 0 }, "repetitionPenalty must be a number above 0, got 0"],
    [
      { frequencyPenalty: Infinity },
      "frequencyPenalty must be a number from -1000000 to 1000000, got Infinity",
    ],
    [{ presencePenalty: "1" }, 'presencePenalty must be a number from -1000000 to 1000000, got "1"'],
    [{ frequencyPenalty: 1e300 }, "frequencyPenalty must be a number from -1000000 to 1000000, got 1e+300"],
    [{ logitBias: [1] }, "logitBias must be an object with a number for each token id, got [1]"],
    [{ logitBias: { the: 1 } }, 'the names in logitBias must be token ids, got "the"'],
    [{ logitBias: { 3: NaN } }, "logitBias[3] must be a number from -1000000 to 1000000, got NaN"],
    [{ logitBias: { 97: 1 } }, "logitBias has the token 97; this model's tokens are 0 to 96"],
    [{ seed: -1 }, "seed must be a whole number of at least 0, got -1"],
    [{ seed: 2 ** 60 }, "seed must be a whole number of at least 0, got 1152921504606847000"],
    [{ stop: "" }, 'stop must be a string of at least one character, got ""'],
    [{ stop: ["a", 3] }, "stop[1] must be a string, got 3"],
    [{ signal: {} }, "signal must be an AbortSignal, got an object"],
    [7, "the last argument must be an object of options, got 7"],
  ];
  for (const [given, message] of options)
    t.is(await refused(PROMPT, given), `ERR_OPTION generate: ${message}`);
  t.regex(
    await refused(PROMPT, { maxTokens: 3 }),
    /^ERR_OPTION generate: there is no option maxTokens; use maxNewTokens, /,
  );
  const prompts: [unknown, RegExp][] = [
    [null, /^ERR_OPTION generate: the prompt must be .*, got null$/],
    ["text", /^ERR_OPTION generate: this model has no tokenizer/],
    [[{ role: "user", content: "hello" }], /^ERR_OPTION generate: this model has no tokenizer/],
    [new Int32Array(), /^ERR_OPTION generate: the prompt has no tokens$/],
    [Int32Array.of(1, 97), /^ERR_INDEX /],
    [Int32Array.of(-1), /^ERR_INDEX /],
    [
      new Int32Array(600),
      /^ERR_OPTION generate: the prompt has 600 tokens; this model takes fewer than 512$/,
    ],
  ];
  for (const [given, message] of prompts) t.regex(await refused(given, {}), message);
  model.dispose();
});

for (const device of testDevices()) {
  test.serial(
    `on ${device}: generation during training has no dropout, and training keeps its own`,
    async (t) => {
      manualSeed(5);
      const model = await smallLlama(device, 512, 0.5);
      for (const [name, parameter] of model.namedParameters())
        if (name.includes("lora_B")) parameter.copy(full(parameter.shape, 0.05, { device }));
      const loss = (): Promise<number> =>
        scope(async () => {
          const ids = tensor(
            Int32Array.from({ length: 9 }, (_, i) => i + 1),
            { shape: [1, 9], device },
          );
          return noGrad(() => model.loss(ids, TEXT, { reduction: "sum" })).item();
        });
      const tokens = async (): Promise<number[]> => {
        const list: number[] = [];
        for await (const { token } of model.generate(PROMPT, { maxNewTokens: 8 })) list.push(token);
        return list;
      };
      const still = model.eval() && (await tokens());
      const plain = await loss();
      model.train();
      // This layer is set to eval by the user and stays in it.
      const apart = model.model.layers[0]?.mlp;
      apart?.eval();
      const pieces = model.generate(PROMPT, { maxNewTokens: 8 });
      const during: number[] = [];
      for await (const { token } of pieces) {
        during.push(token);
        t.true(model.training);
        t.not(await loss(), plain);
      }
      t.deepEqual(during, still);
      t.deepEqual([model.training, apart?.training], [true, false]);
      model.dispose();
    },
  );
}
