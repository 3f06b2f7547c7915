/**
 * Hidden states, and embeddings instead of token ids, compared with transformers in float64 (hidden_states.py). The
 * bounds are those in llama.test.ts.
 */
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import {
  loadModel,
  lora,
  noGrad,
  scope,
  tensor,
  type CausalLM,
  type ForwardOptions,
  type PretrainedModel,
  type SequenceClassifier,
  type SpeechToText,
  type Tensor,
} from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";
import { hashedFeatures } from "./speech.js";

const LLAMAS = ["untied-llama3", "mistral", "qwen2", "qwen3", "gemma3", "phi3"].map(
  (name) => `llama-${name}`,
);
const FAMILIES = ["gpt2", "gpt2-scaled", "bert", "roberta", "distilbert"];

const golden = onHost(join(goldens, "hidden_states.safetensors"));

/** Returns the goldens `PREFIX.0`, `PREFIX.1` and so on. */
async function goldenStates(prefix: string): Promise<Golden[]> {
  const host = await golden;
  const states: Golden[] = [];
  for (let one = host[`${prefix}.0`]; one !== undefined; one = host[`${prefix}.${states.length}`])
    states.push(one);
  return states;
}

async function checkStates(
  t: ExecutionContext,
  states: readonly Tensor[] | undefined,
  prefix: string,
): Promise<void> {
  const expected = await goldenStates(prefix);
  t.true(expected.length > 2);
  t.is(states?.length, expected.length, prefix);
  for (const [i, one] of expected.entries()) {
    t.deepEqual(states?.[i]?.shape, one.shape);
    const off = error((await states?.[i]?.data()) ?? [], one.data);
    t.true(off < 1e-5, `${prefix}.${i} is off by ${off}`);
  }
}

/** Loads the model of a golden's folder and its base batch. */
async function load(name: string, device: TestDevice) {
  const folder = join(goldens, name.startsWith("llama-") ? name : join("families", name));
  const host = await onHost(join(folder, "golden.safetensors"));
  const on = (key: string): Tensor | undefined => {
    const one = host[key];
    return one && tensor(one.data, { shape: one.shape, device });
  };
  const options = {
    attentionMask: on("attention_mask"),
    tokenTypeIds: on("token_type_ids"),
    positionIds: on("position_ids"),
  } satisfies ForwardOptions;
  const model: PretrainedModel = await loadModel(goldenModel(folder), { device });
  const input = (on("ids") ?? on("input_ids") ?? on("pixel_values")) as Tensor;
  return { model, input, options, labels: on("labels") as Tensor };
}

for (const device of testDevices()) {
  for (const name of [...LLAMAS, ...FAMILIES]) {
    test(`${name} on ${device}: hidden states`, async (t) => {
      const { model, input, options } = await load(name, device);
      const out = scope(() => model.forward(input, { ...options, outputHiddenStates: true }));
      await checkStates(t, out.hiddenStates, `${name}.states`);
      t.is(out.hiddenStates?.at(-1), out.hidden);
      const plain = scope(() => model.forward(input, options));
      t.is(plain.hiddenStates, undefined);
      t.deepEqual(await out.logits?.data(), await plain.logits?.data());
      model.dispose();
    });

    test(`${name} on ${device}: embeddings instead of ids, and the gradient into them`, async (t) => {
      const { model, options, labels, input } = await load(name, device);
      const host = await golden;
      const given = host[`${name}.embeds`] as Golden;
      for (const checkpointed of [false, true]) {
        model.gradientCheckpointing = checkpointed;
        model.train();
        const embeds = tensor(given.data, { shape: given.shape, device, requiresGrad: true });
        const out = scope(() => {
          const wanted = { ...options, inputsEmbeds: embeds, labels, outputHiddenStates: true };
          const made = model.forward(null, wanted);
          made.loss?.backward();
          return made;
        });
        await checkStates(t, out.hiddenStates, `${name}.embeds.states`);
        const off = [
          error((await out.logits?.data()) ?? [], host[`${name}.embeds.logits`]?.data ?? []),
          error((await out.loss?.data()) ?? [], host[`${name}.embeds.loss`]?.data ?? []),
          error((await embeds.grad?.data()) ?? [], host[`${name}.embeds.grad`]?.data ?? []),
        ];
        t.true(Math.max(...off) < 1e-5, `logits, loss and gradient are off by ${off.join(", ")}`);
      }
      model.gradientCheckpointing = false;
      model.eval();
      // Without ids, RoBERTa counts positions without regard to padding, as in transformers.
      if (name !== "roberta") {
        const reading = model as CausalLM | SequenceClassifier;
        const [own, usual] = noGrad(() =>
          scope(() => [
            model.forward(null, { ...options, inputsEmbeds: reading.embedTokens(input) }).logits as Tensor,
            model.forward(input, options).logits as Tensor,
          ]),
        ) as [Tensor, Tensor];
        t.deepEqual(await own.data(), await usual.data());
      }
      model.dispose();
    });
  }

  test(`vit on ${device}: hidden states, the last before the norm`, async (t) => {
    const { model, input } = await load("vit", device);
    const out = scope(() => model.forward(input, { outputHiddenStates: true }));
    await checkStates(t, out.hiddenStates, "vit.states");
    const message = /inputsEmbeds stands for token ids, which this model does not take/;
    t.throws(() => model.forward(null, { inputsEmbeds: input }), { code: "ERR_OPTION", message });
    model.dispose();
  });

  test(`whisper on ${device}: hidden states of the decoder and the encoder`, async (t) => {
    const folder = join(goldens, "whisper");
    const model: SpeechToText = await loadModel(goldenModel(folder), { device, task: "speech-to-text" });
    const host = await onHost(join(folder, "golden.safetensors"));
    const { data, shape } = host["labels"] as Golden;
    const features = tensor(hashedFeatures("base", 2 * 12 * 100), { shape: [2, 12, 100], device });
    const out = scope(() =>
      model.forward(features, { labels: tensor(data, { shape, device }), outputHiddenStates: true }),
    );
    await checkStates(t, out.hiddenStates, "whisper.states");
    await checkStates(t, out.encoderHiddenStates, "whisper.encoder");
    model.dispose();
  });
}

test("embeddings and hidden states with an adapter for each row", async (t) => {
  const { model, input, options } = await load("bert", "cpu");
  await lora.loadAdapter(model, join(goldens, "families", "bert", "adapter"));
  const [whole, alone] = noGrad(() =>
    scope(() => {
      const embeds = (model as SequenceClassifier).embedTokens(input);
      const given = { ...options, inputsEmbeds: embeds, outputHiddenStates: true };
      const mixed = model.forward(null, { ...given, adapterPerRow: ["default", null, "default"] });
      const base = lora.withoutAdapters(model, () => model.forward(null, given));
      const adapted = model.forward(null, given);
      const row = (states: readonly Tensor[] | undefined, b: number): Tensor[] =>
        (states ?? []).map((one) => one.slice(0, b, b + 1));
      const expected = [
        row(adapted.hiddenStates, 0),
        row(base.hiddenStates, 1),
        row(adapted.hiddenStates, 2),
      ];
      return [[0, 1, 2].map((b) => row(mixed.hiddenStates, b)), expected];
    }),
  ) as [Tensor[][], Tensor[][]];
  for (const [b, states] of alone.entries()) {
    t.is(states.length, 3);
    for (const [i, one] of states.entries()) {
      const off = error((await whole[b]?.[i]?.data()) ?? [], await one.data());
      t.true(off < 1e-6, `row ${b}, state ${i} is off by ${off}`);
    }
  }
  model.dispose();
});

test("unsuitable ids and embeddings are refused by forward", async (t) => {
  const { model, input } = await load("bert", "cpu");
  const embeds = (model as SequenceClassifier).embedTokens(input);
  const refused = (code: string, message: RegExp, ids: Tensor | null, options: ForwardOptions): void => {
    t.throws(() => model.forward(ids, options), { code, message });
  };
  refused("ERR_OPTION", /token ids or inputsEmbeds, not both; pass null as ids/, input, {
    inputsEmbeds: embeds,
  });
  refused(
    "ERR_OPTION",
    /its input must be a tensor of token ids, or null where inputsEmbeds is given/,
    null,
    {},
  );
  refused("ERR_DTYPE", /inputsEmbeds are floats, not i32/, null, { inputsEmbeds: input });
  const narrow = embeds.slice(2, 0, 8);
  refused("ERR_SHAPE_MISMATCH", /\[3, 13, 8\]; this model takes \[B, T, 32\]/, null, {
    inputsEmbeds: narrow,
  });
  refused("ERR_OPTION", /outputHiddenStates must be true or false/, input, {
    outputHiddenStates: 1 as never,
  });
  model.dispose();
});
