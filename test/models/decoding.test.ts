/** Texts admitted while others are decoded get the same tokens as alone. */
import { join } from "node:path";

import test from "ava";
import { loadModel, lora, manualSeed, rand, type CausalLM, type GenerateOptions } from "../../src/index.js";
import { type NextToken, type DecodedText, Decoding } from "../../src/models/decoding.js";
import { checkGenerateOptions } from "../../src/models/generate-options.js";
import { createDecodedTexts } from "../../src/models/generate.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { goldenModel, words } from "../hashed.js";
import { session } from "../../src/native/binding.js";
import { goldens } from "../parity/goldens.js";
import { smallLlama } from "../small-llama.js";

const FOLDERS = {
  llama: join(goldens, "llama-untied-llama3"),
  mistral: join(goldens, "llama-mistral"),
  gpt2: join(goldens, "families", "gpt2"),
};

/** A request, and the step before which it is admitted. */
interface Request {
  at: number;
  prompt: Int32Array;
  options: GenerateOptions;
  adapter: string | null;
  /** The number of tokens after which the caller ends it. */
  leaves?: number;
}

function promptOf(name: string, length: number): Int32Array {
  return Int32Array.from(words(name, length), (word) => 3 + ((word >>> 8) % 94));
}

async function alone(model: CausalLM, { prompt, options, adapter }: Request): Promise<number[]> {
  const tokens: number[] = [];
  const adapterPerRow = [adapter];
  for await (const [piece] of model.generateBatch([prompt], { ...options, adapterPerRow }))
    if (piece) tokens.push(piece.token);
  return tokens;
}

/** Decodes requests, each admitted at its step, without end tokens. */
async function joining(model: CausalLM, requests: readonly Request[]): Promise<(number[] | unknown)[]> {
  const decoding = new Decoding(model);
  const given = requests.map((): number[] => []);
  const failures = new Map<DecodedText, unknown>();
  const texts = new Map<DecodedText, number>();
  try {
    for (let step = 0; ; step++) {
      for (const [i, { at, prompt, options, adapter }] of requests.entries()) {
        if (at !== step) continue;
        const checked = checkGenerateOptions("test", options);
        const made = createDecodedTexts("test", model, [prompt], [checked.seed], checked, [adapter]);
        const [text] = made as [DecodedText];
        texts.set(text, i);
        decoding.admit([text]);
      }
      const chosen: NextToken[] = await decoding.next();
      for (const one of chosen) {
        const i = texts.get(one.text) as number;
        const own = given[i] as number[];
        if (failures.has(one.text)) throw new Error("a text that failed is not continued");
        if ("failure" in one) failures.set(one.text, one.failure);
        else own.push(one.token);
        if (own.length === requests[i]?.leaves) decoding.end(one.text);
      }
      if (chosen.length === 0 && requests.every(({ at }) => at <= step)) break;
    }
  } finally {
    decoding.dispose();
  }
  return requests.map((_, i) => {
    const [text] = [...texts].find(([, place]) => place === i) as [DecodedText, number];
    return failures.get(text) ?? given[i];
  });
}

async function adapted(model: CausalLM): Promise<void> {
  manualSeed(4);
  for (const name of ["a", "b"])
    await lora.inject(model, { r: 4, loraAlpha: 16, targetModules: "all-linear", name });
  for (const [path, parameter] of model.namedParameters())
    if (path.includes("lora_B")) parameter.copy(rand(parameter.shape, { device: model.device }));
}

for (const device of testDevices()) {
  for (const [name, folder] of Object.entries(FOLDERS)) {
    test.serial(
      `${name} on ${device}: texts join midway, longer and shorter than the running ones`,
      async (t) => {
        const model = await loadModel<"causal-lm">(goldenModel(folder), { device });
        Object.assign(model.config, { eosTokenIds: [] });
        await adapted(model);
        const maxNewTokens = 9;
        const sampled = { temperature: 1.1, topP: 0.95, maxNewTokens };
        const penalised = { temperature: 0.8, repetitionPenalty: 1.3, seed: 9, maxNewTokens };
        const shifted = { frequencyPenalty: 1, presencePenalty: 0.5, logitBias: { 5: 2 }, maxNewTokens: 14 };
        const requests: Request[] = [
          { at: 0, prompt: promptOf("first", 6), options: { maxNewTokens: 12 }, adapter: "a" },
          { at: 2, prompt: promptOf("shorter", 3), options: { ...sampled, seed: 5 }, adapter: null },
          { at: 2, prompt: promptOf("longer", 18), options: { ...sampled, seed: 6 }, adapter: "b" },
          { at: 3, prompt: promptOf("penalised", 7), options: penalised, adapter: "a" },
          { at: 4, prompt: promptOf("shifted", 4), options: shifted, adapter: "b" },
          { at: 5, prompt: promptOf("leaves", 5), options: { maxNewTokens: 20 }, adapter: "b", leaves: 3 },
          { at: 7, prompt: promptOf("one", 2), options: { maxNewTokens: 1 }, adapter: null },
          { at: 15, prompt: promptOf("late", 9), options: { maxNewTokens: 4 }, adapter: "a" },
          // Admitted while nothing is running.
          { at: 40, prompt: promptOf("idle", 4), options: { maxNewTokens: 3 }, adapter: "a" },
        ];
        const expected = [];
        for (const request of requests) {
          const tokens = await alone(model, request);
          expected.push(tokens.slice(0, request.leaves ?? Infinity));
        }
        t.deepEqual(await joining(model, requests), expected);
        t.true(new Set(expected.map((tokens) => tokens.join())).size === requests.length);
        model.dispose();
      },
    );
  }

  test.serial(`on ${device}: a failure in any step leaves no tensor, not even for penalties`, async (t) => {
    const model = await smallLlama(device);
    const options = { maxNewTokens: 5, temperature: 1, repetitionPenalty: 1.2, frequencyPenalty: 1 };
    const requests: Request[] = [
      { at: 0, prompt: promptOf("first", 5), options, adapter: null },
      { at: 2, prompt: promptOf("second", 3), options: { ...options, seed: 4 }, adapter: null },
    ];
    const hidden = model.computeHidden.bind(model);
    await joining(model, requests);
    const { tensors } = await atRest(device);
    let calls = 0;
    for (let failing = 1; ; failing++) {
      calls = 0;
      model.computeHidden = (...given) => {
        if (++calls === failing) throw new Error("this step fails");
        return hidden(...given);
      };
      await joining(model, requests).catch((error: unknown) =>
        t.is((error as Error).message, "this step fails"),
      );
      t.is((await atRest(device)).tensors, tensors, `call ${failing}`);
      if (calls < failing) break;
    }
    t.true(calls > 5);
    model.dispose();
  });

  test.serial(`on ${device}: texts of different options are sampled by one launch a step`, async (t) => {
    const model = await smallLlama(device);
    const count = async (requests: Request[]): Promise<number> => {
      session().countLaunches(device, true);
      await joining(model, requests);
      const launches = session().countLaunches(device, false);
      return Object.entries(launches).reduce(
        (n, [name, times]) => n + (name.startsWith("sample") ? times : 0),
        0,
      );
    };
    const request = (i: number, options: GenerateOptions): Request => ({
      ...{ at: 0, prompt: promptOf(`text ${i}`, 6), adapter: null },
      options: { maxNewTokens: 6, seed: i, ...options },
    });
    const kinds = [
      { temperature: 1 },
      { temperature: 0.7, topK: 5 },
      {},
      { temperature: 1, topP: 0.9, minP: 0.01 },
    ];
    const one = await count([request(0, { temperature: 1 })]);
    t.true(one >= 6);
    t.is(await count(Array.from({ length: 12 }, (_, i) => request(i, kinds[i % 4] as GenerateOptions))), one);
    model.dispose();
  });

  test.serial(`on ${device}: an error of one text ends only that text, and no tensor is left`, async (t) => {
    const model = await smallLlama(device);
    await lora.inject(model, { r: 2, targetModules: ["q_proj"], name: "broken" });
    for (const [path, parameter] of model.namedParameters())
      if (path.includes("lora_B.broken")) parameter.copy(rand(parameter.shape, { device }).mul(NaN));
    const options = { maxNewTokens: 6 };
    const good: Request[] = [
      { at: 0, prompt: promptOf("good", 5), options, adapter: null },
      { at: 3, prompt: promptOf("too", 4), options: { ...options, temperature: 1, seed: 1 }, adapter: null },
    ];
    const expected = [];
    for (const request of good) expected.push(await alone(model, request));
    const { tensors } = await atRest(device);
    const [first, broken, outside, last] = await joining(model, [
      good[0] as Request,
      { at: 1, prompt: promptOf("broken", 5), options, adapter: "broken" },
      { at: 2, prompt: Int32Array.of(3, 400), options, adapter: null },
      good[1] as Request,
    ]);
    t.deepEqual([first, last], expected);
    t.is((broken as { code?: string }).code, "ERR_NOT_FINITE");
    t.is((outside as { code?: string }).code, "ERR_INDEX");
    t.is((await atRest(device)).tensors, tensors);
    model.dispose();
  });
}
