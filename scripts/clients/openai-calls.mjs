// OpenAI's client library for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { VERSION } from "openai/version";
import { checkError, checkText, GIVEN, join, report } from "./report.mjs";

const { url, token, model, messages, prompt, chat, completion, maxTokens, stop } = GIVEN;
const client = new OpenAI({ baseURL: url, apiKey: token, maxRetries: 0 });
const asked = { model, temperature: 0, max_tokens: maxTokens };
const ask = (more) => client.chat.completions.create({ ...asked, messages, ...more });

/** The text of a chat's first answer. */
const read = ({ choices }) => choices[0].message.content;

await report(`openai ${VERSION} (Node)`, {
  "models.list": async () => {
    const names = (await client.models.list()).data.map(({ id }) => id);
    assert.deepEqual(names, [model]);
    return names.join(", ");
  },
  "models.retrieve": async () => (await client.models.retrieve(model)).id,
  "chat.completions.create": async () => {
    const { data: answer, request_id: id } = await ask().withResponse();
    assert.equal(answer.usage.completion_tokens, maxTokens);
    assert.equal(answer.choices[0].finish_reason, "length");
    assert.match(id, /^req_/);
    return checkText(read(answer), chat);
  },
  "chat.completions.create, stream": async () => {
    const usages = [];
    const stream = await ask({ stream: true, stream_options: { include_usage: true } });
    const text = await join(stream, ({ choices, usage }) => {
      if (usage) usages.push(usage);
      return choices[0]?.delta.content;
    });
    assert.deepEqual(
      usages.map(({ completion_tokens }) => completion_tokens),
      [maxTokens],
    );
    return checkText(text, chat);
  },
  "chat.completions.stream": async () =>
    checkText(await client.chat.completions.stream({ ...asked, messages }).finalContent(), chat),
  "a stream that the client aborts": async () => {
    const stream = await ask({ stream: true, max_tokens: 100 });
    for await (const _ of stream) break;
    assert.ok(stream.controller.signal.aborted);
    return checkText(read(await ask()), chat);
  },
  "completions.create": async () =>
    checkText((await client.completions.create({ ...asked, prompt })).choices[0].text, completion),
  "completions.create, stream": async () => {
    const stream = await client.completions.create({ ...asked, prompt, stream: true });
    return checkText(await join(stream, ({ choices }) => choices[0]?.text), completion);
  },
  "a list of stop texts": async () => {
    const answer = await ask({ stop: ["never", stop] });
    assert.equal(answer.choices[0].finish_reason, "stop");
    return checkText(read(answer), chat.slice(0, chat.indexOf(stop)));
  },
  "n and seed": async () => {
    const sample = async () => {
      const { choices } = await ask({ n: 2, seed: 7, temperature: 1 });
      return choices.map(({ message }) => message.content);
    };
    const texts = await sample();
    assert.equal(new Set(texts).size, 2);
    assert.deepEqual(await sample(), texts);
    return JSON.stringify(texts);
  },
  "logprobs, with the bytes of the text": async () => {
    const { choices } = await ask({ logprobs: true, top_logprobs: 2 });
    const { content } = choices[0].logprobs;
    assert.ok(content.every(({ logprob, top_logprobs: top }) => logprob <= 0 && top.length === 2));
    return checkText(Buffer.from(content.flatMap(({ bytes }) => bytes)).toString(), chat);
  },
  "frequency_penalty and presence_penalty": async () => {
    const text = read(await ask({ frequency_penalty: 2, presence_penalty: 2 }));
    assert.notEqual(text, chat);
    return JSON.stringify(text);
  },
  logit_bias: async () => {
    const text = read(await ask({ logit_bias: { 100: 100 } }));
    assert.match(text, /^(.+)\1+$/s);
    return JSON.stringify(text);
  },
  "a developer message": async () => {
    const [system, developer] = await Promise.all(
      ["system", "developer"].map((role) => ask({ messages: [{ role, content: "Be brief." }, ...messages] })),
    );
    return checkText(read(developer), read(system));
  },
  "parameters without effect": async () =>
    checkText(read(await ask({ store: false, metadata: { a: "b" }, user: "ada" })), chat),
  "an unsupported parameter": () =>
    checkError(ask({ web_search_options: {} }), OpenAI.BadRequestError, 400, "web_search_options"),
  "an unknown model": () => checkError(ask({ model: "absent" }), OpenAI.NotFoundError, 404, model),
  "models.retrieve, an unknown model": () =>
    checkError(client.models.retrieve("absent"), OpenAI.NotFoundError, 404, model),
  "a wrong token": () => {
    const other = new OpenAI({ baseURL: url, apiKey: `${token}x`, maxRetries: 0 });
    return checkError(other.models.list(), OpenAI.AuthenticationError, 401, "");
  },
});
