/** Several prompts in a batch get the same tokens as alone. */
import { join } from "node:path";

import test from "ava";
import {
  loadModel,
  lora,
  LowrankError,
  manualSeed,
  memory,
  noGrad,
  rand,
  scope,
  tensor,
  type CausalLM,
  type GenerateBatchOptions,
  type GenerateOptions,
  type Piece,
  type Prompt,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { chiSquareScore } from "../chi-square.js";
import { testDevices } from "../devices.js";
import { goldenModel, tinyModel, words } from "../hashed.js";
import { goldens } from "../parity/goldens.js";
import { smallLlama } from "../small-llama.js";

const FOLDERS = {
  llama: join(goldens, "llama-untied-llama3"),
  mistral: join(goldens, "llama-mistral"),
  gpt2: join(goldens, "families", "gpt2"),
};

function promptsOf(name: string, lengths: readonly number[]): Int32Array[] {
  return lengths.map((length, i) =>
    Int32Array.from(words(`${name} ${i}`, length), (word) => 3 + ((word >>> 8) % 94)),
  );
}

async function alone(model: CausalLM, prompt: Prompt, options: GenerateOptions): Promise<Piece[]> {
  const pieces: Piece[] = [];
  for await (const piece of model.generate(prompt, options)) pieces.push(piece);
  return pieces;
}

async function together(
  model: CausalLM,
  prompts: readonly Prompt[],
  options: GenerateBatchOptions,
): Promise<Piece[][]> {
  const lists: Piece[][] = prompts.map(() => []);
  for await (const pieces of model.generateBatch(prompts, options)) {
    if (pieces.length !== prompts.length || pieces.every((piece) => piece === null))
      throw new Error("a step gives one entry a prompt, and something");
    for (const [row, piece] of pieces.entries()) if (piece !== null) lists[row]?.push(piece);
  }
  return lists;
}

for (const device of testDevices()) {
  for (const [name, folder] of Object.entries(FOLDERS)) {
    test.serial(
      `${name} on ${device}: a batch equals single prompts, as texts end at different times`,
      async (t) => {
        const model = await loadModel<"causal-lm">(goldenModel(folder), { device });
        const longest = name === "gpt2" ? 20 : 30;
        const prompts = promptsOf(name, [7, 1, longest, 12, 7]);
        for (const options of [
          {},
          { temperature: 1.2, seed: 5 },
          { temperature: 0.9, topK: 20, topP: 0.9, minP: 0.02, repetitionPenalty: 1.2, seed: 8 },
        ]) {
          // Some texts end at a token, some at the model's longest text, some at the limit.
          const first = await alone(model, prompts[0] as Int32Array, { ...options, maxNewTokens: 5 });
          Object.assign(model.config, { eosTokenIds: [first.at(-1)?.token ?? 2] });
          const all = { ...options, maxNewTokens: name === "gpt2" ? 40 : 22 };
          const expected = [];
          for (const prompt of prompts) expected.push(await alone(model, prompt, all));
          t.deepEqual(await together(model, prompts, all), expected, JSON.stringify(options));
          t.true(new Set(expected.map(({ length }) => length)).size > 1);
          if (name === "gpt2") t.is(Math.max(...expected.map(({ length }) => length)) <= 23, true);
        }
        model.dispose();
      },
    );
  }

  test.serial(`on ${device}: a seed and an adapter for each prompt, and prompts of one length`, async (t) => {
    const model = await loadModel<"causal-lm">(goldenModel(FOLDERS.llama), { device });
    manualSeed(4);
    for (const adapter of ["a", "b"])
      await lora.inject(model, { r: 4, loraAlpha: 16, targetModules: "all-linear", name: adapter });
    for (const [path, parameter] of model.namedParameters())
      if (path.includes("lora_B")) parameter.copy(rand(parameter.shape, { device }));
    const prompts = promptsOf("adapters", [6, 6, 3, 6]);
    const adapterPerRow = ["b", null, "a", "b"];
    const seed = [1, 2, 3, 4];
    const options = { temperature: 1.1, maxNewTokens: 10 };
    const lists = await together(model, prompts, { ...options, seed, adapterPerRow });
    for (const [row, prompt] of prompts.entries()) {
      const name = adapterPerRow[row] as string | null;
      if (name !== null) lora.setAdapter(model, name);
      const own = { ...options, seed: seed[row] };
      const expected =
        name === null
          ? await lora.withoutAdapters(model, () => alone(model, prompt, own))
          : await alone(model, prompt, own);
      t.deepEqual(lists[row], expected, `row ${row}`);
    }
    model.dispose();
  });

  test.serial(
    `on ${device}: a break, an abort and an error end generation, and no tensor is left`,
    async (t) => {
      const model = await smallLlama(device);
      const prompts = promptsOf("ends", [4, 9]);
      await together(model, prompts, { maxNewTokens: 3 });
      const { tensors } = await atRest(device);
      for await (const _ of model.generateBatch(prompts, { repetitionPenalty: 2 })) break;
      t.deepEqual(await together(model, prompts, { maxNewTokens: 0 }), [[], []]);
      t.deepEqual(await together(model, [], {}), []);
      const controller = new AbortController();
      const aborted = async (): Promise<void> => {
        for await (const _ of model.generateBatch(prompts, { signal: controller.signal }))
          controller.abort(new Error("enough"));
      };
      await t.throwsAsync(aborted, { message: "enough" });
      await t.throwsAsync(together(model, [Int32Array.of(1, 400)], {}), { code: "ERR_INDEX" });
      const noAdapter = together(model, prompts, { adapterPerRow: ["none", null] });
      await t.throwsAsync(noAdapter, { code: "ERR_UNKNOWN_ADAPTER" });
      t.true(memory(device).tensors <= tensors);
      model.dispose();
    },
  );
}

test("texts of a batch stop and decode independently", async (t) => {
  const model = await loadModel<"causal-lm">(tinyModel(), { device: "cpu" });
  const prompts = ["the whale", "a", "the sea was wide."];
  const plain = await Promise.all(prompts.map((prompt) => alone(model, prompt, { maxNewTokens: 20 })));
  const stop = plain.map((pieces) =>
    pieces
      .map(({ text }) => text)
      .join("")
      .slice(6, 8),
  );
  const options = { maxNewTokens: 20, stop };
  const expected = await Promise.all(prompts.map((prompt) => alone(model, prompt, options)));
  t.deepEqual(await together(model, prompts, options), expected);
  t.true(expected.some((pieces, row) => pieces.length < (plain[row] as Piece[]).length));
  model.dispose();
});

test("options are validated for each prompt", async (t) => {
  const model = await smallLlama("cpu");
  const refused = async (prompts: unknown, options: unknown): Promise<string> => {
    const pieces = model.generateBatch(prompts as Prompt[], options as GenerateBatchOptions);
    const error = await t.throwsAsync(async () => pieces.next(), { instanceOf: LowrankError });
    return `${(error as LowrankError).code} ${error?.message}`;
  };
  const good = Int32Array.of(1);
  const cases: [unknown, unknown, RegExp][] = [
    ["text", {}, /^ERR_OPTION generateBatch: prompts must be an array, got "text"$/],
    [
      [good, 3],
      {},
      /^ERR_OPTION generateBatch: prompts\[1\] must be a string, an Int32Array of token ids or an array of messages, got 3$/,
    ],
    [[good, "a"], {}, /^ERR_OPTION generateBatch: this model has no tokenizer/],
    [[[{ role: "user", content: "a" }]], {}, /^ERR_OPTION generateBatch: this model has no tokenizer/],
    [[good, new Int32Array(512)], {}, /^ERR_OPTION generateBatch: prompts\[1\] has 512 tokens/],
    [
      [good],
      { seed: [1, 2] },
      /^ERR_OPTION generateBatch: seed must be one value for each of 1 prompts, got \[1, 2\]$/,
    ],
    [
      [good],
      { seed: ["1"] },
      /^ERR_OPTION generateBatch: seed\[0\] must be a whole number of at least 0, got "1"$/,
    ],
    [[good], { seed: 1.5 }, /^ERR_OPTION generateBatch: seed must be a whole number of at least 0, got 1.5$/],
    [
      [good],
      { adapterPerRow: [3] },
      /^ERR_OPTION generateBatch: adapterPerRow\[0\] must be a string, got 3$/,
    ],
    [
      [good],
      { adapterPerRow: [] },
      /^ERR_OPTION generateBatch: adapterPerRow must be one value for each of 1 prompts/,
    ],
    [
      [good],
      { maxNewToken: 3 },
      /^ERR_OPTION generateBatch: there is no option maxNewToken \(did you mean maxNewTokens\?\); .*adapterPerRow/,
    ],
    [[good], null, /^ERR_OPTION generateBatch: the last argument must be an object of options, got null$/],
  ];
  for (const [prompts, options, message] of cases) t.regex(await refused(prompts, options), message);
  model.dispose();
});

test("first tokens follow the distribution of the model's logits, under each filter", async (t) => {
  const model = await loadModel<"causal-lm">(goldenModel(FOLDERS.llama), { device: "cpu" });
  const [prompt] = promptsOf("chi", [5]) as [Int32Array];
  const row = noGrad(() =>
    scope(() =>
      model
        .forward(tensor(prompt, { shape: [1, 5], device: "cpu" }))
        .logits.slice(1, 4)
        .reshape(-1),
    ),
  );
  const logits = [...((await row.data()) as Float32Array)];
  row.dispose();
  for (const [options, T, keep] of [
    [{ temperature: 1.5 }, 1.5, () => true],
    [{ temperature: 1, topK: 8 }, 1, (_: number, rank: number) => rank < 8],
    [{ temperature: 2, minP: 0.2 }, 2, (p: number) => p >= 0.2],
  ] as const) {
    const order = [...logits].sort((a, b) => b - a);
    const weights = logits.map((logit) => {
      const weight = Math.exp((logit - (order[0] as number)) / T);
      return keep(weight, order.indexOf(logit)) ? weight : 0;
    });
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const counts = logits.map(() => 0);
    const prompts = Array.from({ length: 1000 }, () => prompt);
    const seed = prompts.map((_, i) => i);
    for (const [piece] of await together(model, prompts, { ...options, seed, maxNewTokens: 1 }))
      if (piece !== undefined) counts[piece.token] = (counts[piece.token] as number) + 1;
    // The end token is not yielded.
    const end = prompts.length - counts.reduce((total, count) => total + count, 0);
    counts[2] = end;
    const score = chiSquareScore(
      counts,
      weights.map((weight) => weight / sum),
    );
    t.true(score < 2.326, `${JSON.stringify(options)}: a deviation of ${score}`);
  }
  model.dispose();
});
