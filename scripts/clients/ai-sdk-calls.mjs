// The AI SDK, with its provider for servers of OpenAI's API.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, jsonSchema, streamText } from "ai";
import { checkError, checkText, GIVEN, join, report } from "./report.mjs";

const { url, token, model, messages, prompt, chat, maxTokens, stop } = GIVEN;
const provider = createOpenAICompatible({ name: "lowrank", baseURL: url, apiKey: token, includeUsage: true });
const asked = {
  model: provider(model),
  messages,
  temperature: 0,
  maxOutputTokens: maxTokens,
  maxRetries: 0,
};
const { version } = JSON.parse(readFileSync("node_modules/ai/package.json", "utf8"));

await report(`AI SDK ${version}`, {
  generateText: async () => {
    const { text, usage, finishReason } = await generateText(asked);
    assert.equal(usage.outputTokens, maxTokens);
    assert.equal(finishReason, "length");
    return checkText(text, chat);
  },
  "generateText, with settings": async () => {
    const settings = { seed: 3, temperature: 1, topP: 0.9, frequencyPenalty: 1, presencePenalty: 1 };
    const sample = async () => (await generateText({ ...asked, ...settings })).text;
    const text = await sample();
    assert.notEqual(text, chat);
    return checkText(await sample(), text);
  },
  "generateText, stopSequences": async () => {
    const { text, finishReason } = await generateText({ ...asked, stopSequences: ["never", stop] });
    assert.equal(finishReason, "stop");
    return checkText(text, chat.slice(0, chat.indexOf(stop)));
  },
  "generateText, completionModel": async () => {
    const own = { ...asked, model: provider.completionModel(model), messages: undefined, prompt };
    const { text, usage } = await generateText(own);
    assert.equal(usage.outputTokens, maxTokens);
    return JSON.stringify(text);
  },
  streamText: async () => {
    const result = streamText(asked);
    const text = await join(result.textStream);
    assert.equal((await result.usage).outputTokens, maxTokens);
    assert.equal(await result.finishReason, "length");
    return checkText(text, chat);
  },
  "streamText, aborted": async () => {
    const abort = new AbortController();
    const reason = new Error("enough");
    const result = streamText({ ...asked, maxOutputTokens: 100, abortSignal: abort.signal });
    const kinds = [];
    for await (const { type } of result.fullStream) {
      kinds.push(type);
      if (type === "text-delta") abort.abort(reason);
    }
    assert.equal(kinds.at(-1), "abort");
    return checkText((await generateText(asked)).text, chat);
  },
  "generateObject, refused": () => {
    const schema = jsonSchema({ type: "object", properties: {} });
    return checkError(generateObject({ ...asked, schema }), APICallError, 400, "response_format");
  },
  "an unknown model": () =>
    checkError(generateText({ ...asked, model: provider("absent") }), APICallError, 404, model),
});
