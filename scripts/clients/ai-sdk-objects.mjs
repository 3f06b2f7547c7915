// The AI SDK's objects, which need `response_format` with a JSON schema.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, Output, streamObject } from "ai";
import { GIVEN, report } from "./report.mjs";

const { url, token, model, messages } = GIVEN;
const provider = createOpenAICompatible({
  name: "lowrank",
  baseURL: url,
  apiKey: token,
  supportsStructuredOutputs: true,
});
// Only a schema without free text bounds the answer of a model that was not trained for it.
const schema = jsonSchema({
  type: "object",
  properties: {
    animal: { type: "string", enum: ["whale", "shark"] },
    count: { type: "integer", minimum: 1, maximum: 9 },
  },
  required: ["animal", "count"],
  additionalProperties: false,
});
const asked = { model: provider(model), messages, temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
const { version } = JSON.parse(readFileSync("node_modules/ai/package.json", "utf8"));

function checkObject(object) {
  assert.deepEqual(Object.keys(object).toSorted(), ["animal", "count"]);
  assert.ok(["whale", "shark"].includes(object.animal), object.animal);
  assert.ok(Number.isInteger(object.count) && object.count >= 1 && object.count <= 9, object.count);
  return JSON.stringify(object);
}

await report(`AI SDK ${version}`, {
  generateObject: async () => checkObject((await generateObject({ ...asked, schema })).object),
  "generateObject, enum": async () => {
    const { object } = await generateObject({ ...asked, output: "enum", enum: ["sea", "land"] });
    assert.ok(["sea", "land"].includes(object), object);
    return object;
  },
  streamObject: async () => checkObject(await streamObject({ ...asked, schema }).object),
  "generateText, output": async () =>
    checkObject((await generateText({ ...asked, output: Output.object({ schema }) })).output),
});
