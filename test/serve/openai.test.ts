/** The results that OpenAI's client library gets: chat, streams, adapters, many requests at once. */
import { setTimeout as later } from "node:timers/promises";

import test from "ava";
import OpenAI from "openai";

import {
  type CausalLM,
  type GenerateOptions,
  loadModel,
  type Piece,
  type Prompt,
  type Tokenizer,
} from "../../src/index.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { ADAPTERS, adaptedModel, BASE, serving, TEMPLATE, TOKEN, until } from "./serving.js";

const MESSAGES = [{ role: "user" as const, content: "where is the whale?" }];

/** Returns the text that the library generates without a server. */
async function alone(
  model: CausalLM,
  prompt: Prompt,
  name: string,
  options: GenerateOptions,
): Promise<{ text: string; tokens: number }> {
  let [text, tokens] = ["", 0];
  const adapterPerRow = [name === BASE ? null : name];
  for await (const [piece] of model.generateBatch([prompt], { ...options, adapterPerRow })) {
    text += piece?.text ?? "";
    tokens++;
  }
  return { text, tokens };
}

test("chat: the library's own text, exact usage, the finish reason", async (t) => {
  const { model, client } = await serving(t);
  const cut = await alone(model, MESSAGES, BASE, { maxNewTokens: 20 });
  const answer = await client.chat.completions.create({
    model: BASE,
    messages: MESSAGES,
    temperature: 0,
    max_tokens: 20,
  });
  const prompt = model.tokenizer?.applyChatTemplate(MESSAGES, { addGenerationPrompt: true }).length as number;
  t.like(answer, {
    object: "chat.completion",
    model: BASE,
    usage: { prompt_tokens: prompt, completion_tokens: 20, total_tokens: prompt + 20 },
  });
  t.deepEqual(answer.choices, [
    {
      index: 0,
      message: { role: "assistant", content: cut.text, refusal: null },
      logprobs: null,
      finish_reason: "length",
    },
  ] as never);
  // Text parts are joined, null counts as missing, and the limit's newer name is supported as well.
  const parts = await client.chat.completions.create({
    model: BASE,
    messages: [{ role: "user", content: [{ type: "text", text: "where is the whale?" }] }],
    temperature: 0,
    max_completion_tokens: 20,
    stop: null,
    n: null,
  });
  t.is(parts.choices[0]?.message.content, cut.text);

  const stop = cut.text.slice(8, 10);
  const stopped = await alone(model, MESSAGES, BASE, { maxNewTokens: 20, stop });
  const ended = await client.chat.completions.create({
    model: BASE,
    messages: MESSAGES,
    temperature: 0,
    stop,
  });
  t.is(ended.choices[0]?.finish_reason, "stop");
  t.is(ended.choices[0]?.message.content, stopped.text);
  t.is(ended.usage?.completion_tokens, stopped.tokens);

  // The fifth token becomes the end token.
  let fifth: number | undefined;
  for await (const [piece] of model.generateBatch([MESSAGES], { maxNewTokens: 5, adapterPerRow: [null] }))
    fifth = piece?.token;
  Object.assign(model.config, { eosTokenIds: [fifth] });
  const early = await alone(model, MESSAGES, BASE, { maxNewTokens: 20 });
  const short = await client.chat.completions.create({ model: BASE, messages: MESSAGES, temperature: 0 });
  t.is(short.choices[0]?.finish_reason, "stop");
  t.is(short.choices[0]?.message.content, early.text);
  t.is(short.usage?.completion_tokens, early.tokens);
  t.true(early.tokens < 5);
});

test("the chunks of a stream add up to the whole answer, and include the usage on request", async (t) => {
  const { client, post } = await serving(t);
  const asked = { model: BASE, messages: MESSAGES, temperature: 0.9, seed: 7, max_tokens: 30, n: 2 };
  const whole = await client.chat.completions.create(asked);
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  const options = { include_usage: true };
  for await (const chunk of await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: options,
  }))
    chunks.push(chunk);
  for (const [index, { message, finish_reason }] of whole.choices.entries()) {
    const own = chunks.flatMap(({ choices }) => choices.filter((choice) => choice.index === index));
    t.is(own.map(({ delta }) => delta.content ?? "").join(""), message.content as string);
    t.deepEqual(own[0]?.delta, { role: "assistant", content: "" });
    t.is(own.filter(({ delta }) => delta.role !== undefined).length, 1);
    t.deepEqual(
      own.map((choice) => choice.finish_reason),
      own.map((_, i) => (i === own.length - 1 ? finish_reason : null)),
    );
    t.true(own.length > 10);
  }
  t.deepEqual(chunks.at(-1)?.choices, []);
  t.deepEqual(chunks.at(-1)?.usage, whole.usage);
  t.true(chunks.slice(0, -1).every(({ usage, id }) => usage === null && id === chunks[0]?.id));
  const raw = await post("/chat/completions", { ...asked, stream: true });
  t.is(raw.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const text = await raw.text();
  t.true(text.endsWith("\n\ndata: [DONE]\n\n"));
  t.false(text.includes('"usage"'));
  for (const event of text.split("\n\n").slice(0, -2))
    t.notThrows(() => JSON.parse(event.replace("data: ", "")));
});

test("completions: texts, token ids, several of them; the first of n equals the one with n = 1", async (t) => {
  const { model, client } = await serving(t);
  const prompts = ["the whale", "a ship"];
  const greedy = { model: BASE, temperature: 0, max_tokens: 12 };
  const expected = [];
  for (const prompt of prompts) expected.push(await alone(model, prompt, BASE, { maxNewTokens: 12 }));
  const texts = await client.completions.create({ ...greedy, prompt: prompts });
  t.deepEqual(
    texts.choices.map(({ text }) => text),
    expected.map(({ text }) => text),
  );
  const ids = prompts.map((prompt) => [...(model.tokenizer as Tokenizer).encode(prompt)]);
  const tokens = await client.completions.create({ ...greedy, prompt: ids });
  t.deepEqual(tokens.choices, texts.choices);
  t.is(tokens.usage?.prompt_tokens, ids.flat().length);
  const one = await client.completions.create({ ...greedy, prompt: ids[1] as number[] });
  t.is(one.choices[0]?.text, expected[1]?.text);

  const drawn = { model: BASE, prompt: "the whale", seed: 3, top_p: 0.9 };
  const three = await client.completions.create({ ...drawn, n: 3 });
  const single = await client.completions.create(drawn);
  t.is(three.choices[0]?.text, single.choices[0]?.text);
  // A prompt counts once, however many answers it has.
  t.is(three.usage?.prompt_tokens, single.usage?.prompt_tokens);
  // OpenAI's own default.
  t.is(single.usage?.completion_tokens, 16);
  t.is(new Set(three.choices.map(({ text }) => text)).size, 3);
  // Unseeded requests differ.
  const { seed: _, ...unseeded } = drawn;
  const [first, second] = [
    await client.completions.create(unseeded),
    await client.completions.create(unseeded),
  ];
  t.not(first.choices[0]?.text, second.choices[0]?.text);
});

test("penalties and logit_bias: the library's own text, in both endpoints", async (t) => {
  const { model, client } = await serving(t);
  const prompt = "the whale";
  const plain = await alone(model, prompt, BASE, { maxNewTokens: 20 });
  let first = -1;
  for await (const [piece] of model.generateBatch([prompt], { maxNewTokens: 1, adapterPerRow: [null] }))
    first = piece?.token ?? first;
  const cases: [asked: object, options: GenerateOptions][] = [
    [{ frequency_penalty: -1.5 }, { frequencyPenalty: -1.5 }],
    [{ presence_penalty: 2 }, { presencePenalty: 2 }],
    [{ logit_bias: { [first]: -100 } }, { logitBias: { [first]: -100 } }],
  ];
  const texts = [plain.text];
  for (const [asked, options] of cases) {
    const { text } = await alone(model, prompt, BASE, { maxNewTokens: 20, ...options });
    const body = { model: BASE, temperature: 0, max_tokens: 20, ...asked };
    const completion = await client.completions.create({ ...body, prompt });
    t.is(completion.choices[0]?.text, text, JSON.stringify(asked));
    texts.push(text);
    const chat = await client.chat.completions.create({ ...body, messages: MESSAGES });
    const expected = await alone(model, MESSAGES, BASE, { maxNewTokens: 20, ...options });
    t.is(chat.choices[0]?.message.content, expected.text, JSON.stringify(asked));
  }
  t.is(new Set(texts).size, texts.length);
});

test("log-probabilities equal those from generate, in one answer and in a stream", async (t) => {
  const { model, client } = await serving(t);
  const expected: Piece[] = [];
  const options = { maxNewTokens: 12, logprobs: 3, adapterPerRow: [null] };
  for await (const [piece] of model.generateBatch([MESSAGES], options)) if (piece) expected.push(piece);
  const content = expected.map(({ text, logprob = 0, topLogprobs = [] }) => ({
    token: text,
    logprob,
    bytes: [...Buffer.from(text)],
    top_logprobs: topLogprobs.map((one) => ({
      token: one.text,
      logprob: one.logprob,
      bytes: [...Buffer.from(one.text)],
    })),
  }));
  const asked = {
    ...{ model: BASE, messages: MESSAGES, temperature: 0, max_tokens: 12 },
    ...{ logprobs: true, top_logprobs: 3 },
  };
  const whole = await client.chat.completions.create(asked);
  t.deepEqual(whole.choices[0]?.logprobs, { content, refusal: null });
  const streamed = [];
  for await (const { choices } of await client.chat.completions.create({ ...asked, stream: true }))
    streamed.push(...(choices[0]?.logprobs?.content ?? []));
  t.deepEqual(streamed, content);
  const text = "the whale";
  const completed = { model: BASE, prompt: text, temperature: 0, max_tokens: 8, logprobs: 2 };
  const completion = await client.completions.create(completed);
  const { text: answer = "", logprobs } = completion.choices[0] ?? {};
  const {
    tokens = [],
    text_offset: offsets = [],
    token_logprobs: own = [],
    top_logprobs: top = [],
  } = logprobs ?? {};
  t.is(tokens.join(""), answer);
  for (const [i, offset] of offsets.entries()) {
    t.true(answer.slice(offset).startsWith(tokens[i] as string));
    // The most likely token was chosen.
    t.is(Math.max(...Object.values(top[i] as Record<string, number>)), own[i] as number);
  }
  const places: number[] = [];
  for await (const { choices } of await client.completions.create({ ...completed, stream: true }))
    places.push(...(choices[0]?.logprobs?.text_offset ?? []));
  t.deepEqual(places, offsets);
  t.is(
    (await client.completions.create({ model: BASE, prompt: text, max_tokens: 2 })).choices[0]?.logprobs,
    null,
  );
});

test("log-probabilities have the bytes of tokens that are parts of characters", async (t) => {
  const model = await loadModel(locateDefaultModel(), { device: "cpu", task: "causal-lm" });
  const { client } = await serving(t, { model, served: [{ name: BASE, adapter: null }] });
  // The first bytes of two characters: the vocabulary has each byte as a token.
  const [first = -1] = model.tokenizer?.encode("é") ?? [];
  const [other = -1] = model.tokenizer?.encode("漢") ?? [];
  const asked = {
    ...{ model: BASE, messages: MESSAGES, temperature: 0, max_tokens: 3 },
    ...{ logprobs: true, top_logprobs: 20, logit_bias: { [first]: 100, [other]: 60 } },
  };
  if (model.tokenizer) model.tokenizer.chatTemplate = TEMPLATE;
  const { message, logprobs } = (await client.chat.completions.create(asked)).choices[0] ?? {};
  t.deepEqual(
    logprobs?.content?.map(({ token, bytes }) => [token, bytes]),
    [
      ["", [0xc3]],
      ["", [0xc3]],
      ["\ufffd\ufffd\ufffd", [0xc3]],
    ],
  );
  t.is(message?.content, "\ufffd\ufffd\ufffd");
  for (const { top_logprobs } of logprobs?.content ?? [])
    for (const { token, bytes } of top_logprobs) t.is(Buffer.from(bytes ?? []).toString(), token);
});

test("the model of a request is the base or an adapter", async (t) => {
  const { model, client } = await serving(t);
  const listed = await client.models.list();
  t.deepEqual(
    listed.data.map(({ id }) => id),
    [BASE, ...ADAPTERS],
  );
  t.is((await client.models.retrieve("ada")).id, "ada");
  await t.throwsAsync(client.models.retrieve("absent"), { instanceOf: OpenAI.NotFoundError });
  const texts = [];
  for (const name of [BASE, ...ADAPTERS]) {
    const expected = await alone(model, MESSAGES, name, { maxNewTokens: 16 });
    const answer = await client.chat.completions.create({
      model: name,
      messages: MESSAGES,
      temperature: 0,
      max_tokens: 16,
    });
    t.is(answer.model, name);
    t.is(answer.choices[0]?.message.content, expected.text, name);
    texts.push(expected.text);
  }
  t.is(new Set(texts).size, 3);
  const unknown = client.chat.completions.create({ model: "gpt-5", messages: MESSAGES });
  const error = await t.throwsAsync(unknown, { instanceOf: OpenAI.NotFoundError });
  t.is((error as InstanceType<typeof OpenAI.NotFoundError>).code, "model_not_found");
  const wrong = new OpenAI({ baseURL: client.baseURL, apiKey: `${TOKEN}x`, maxRetries: 0 });
  await t.throwsAsync(wrong.models.list(), { instanceOf: OpenAI.AuthenticationError });
});

test("50 requests at once, over base and adapters, greedy and seeded: each gets the answer that it gets alone", async (t) => {
  const model = await adaptedModel();
  const { server, client } = await serving(t, { model });
  const names = [BASE, ...ADAPTERS];
  const requests = Array.from({ length: 50 }, (_, i) => {
    const prompt = "the whale and the ship ".slice(0, 3 + ((i * 7) % 20));
    const sampling = i % 2 === 0 ? { temperature: 0 } : { temperature: 0.8, seed: i };
    return { model: names[i % 3] as string, prompt, max_tokens: 5 + ((i * 11) % 60), ...sampling };
  });
  const expected: { text: string; tokens: number }[] = [];
  for (const { model: name, prompt, max_tokens: maxNewTokens, ...sampling } of requests)
    expected.push(await alone(model, prompt, name, { maxNewTokens, ...sampling }));
  let most = 0;
  const looking = setInterval(() => (most = Math.max(most, server.load.running)), 1);
  const answers = await Promise.all(
    requests.map(async (request, i) => {
      // They arrive while others run.
      await later(i);
      if (i % 5 > 0) {
        const { choices, usage } = await client.completions.create(request);
        return { text: choices[0]?.text, tokens: usage?.completion_tokens };
      }
      let text = "";
      for await (const { choices } of await client.completions.create({ ...request, stream: true }))
        text += choices[0]?.text ?? "";
      return { text, tokens: expected[i]?.tokens };
    }),
  );
  clearInterval(looking);
  t.deepEqual(answers, expected);
  t.true(most > 5, `${most} at once`);
  t.deepEqual(server.load, { waiting: 0, running: 0 });
});

test("a new request joins the running ones, and does not wait for their end", async (t) => {
  const { client } = await serving(t, { maxTokens: 240 });
  let ended = false;
  const long = client.completions
    .create({ model: BASE, prompt: "a", temperature: 0, max_tokens: 240 })
    .then(() => (ended = true));
  await later(20);
  await client.completions.create({ model: "ada", prompt: "the sea", temperature: 0, max_tokens: 3 });
  t.false(ended);
  await long;
});

test("a client that disconnects frees its slot at once, whether it ran or waited", async (t) => {
  const model = await adaptedModel();
  let passes = 0;
  const hidden = model.computeHidden.bind(model);
  model.computeHidden = (...args) => {
    passes++;
    return hidden(...args);
  };
  const { server, client, lines } = await serving(t, { model, maxConcurrent: 1, maxTokens: 240 });
  const endless = { model: BASE, prompt: "a", temperature: 0, max_tokens: 240, stream: true } as const;
  const runs = new AbortController();
  const stream = await client.completions.create(endless, { signal: runs.signal });
  const waits = new AbortController();
  const waiting = client.completions.create(endless, { signal: waits.signal });
  await until(() => server.load.waiting === 1, "a waiting request");
  waits.abort();
  await t.throwsAsync(async () => waiting, { instanceOf: OpenAI.APIUserAbortError });
  await until(() => server.load.waiting === 0, "its end");
  t.is(server.load.running, 1);
  const next = client.completions.create({ ...endless, max_tokens: 2, stream: false });
  for await (const _ of stream) {
    runs.abort();
    break;
  }
  t.is((await next).usage?.completion_tokens, 2);
  await until(() => server.load.running === 0 && lines.length === 3, "the end of all");
  // The text of the disconnected client was not generated to its end.
  t.true(passes < 120, `${passes} forward passes`);
  t.is(lines.filter((line) => line.includes("client gone")).length, 2);
  t.true(
    lines.some((line) =>
      /^POST \/v1\/completions 200 base 1\+\d{1,2} tokens cancelled client gone/.test(line),
    ),
    lines.join("\n"),
  );
});
