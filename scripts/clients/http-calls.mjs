// The endpoints without a client library.
import assert from "node:assert/strict";
import { GIVEN, report } from "./report.mjs";

const { url, token, model } = GIVEN;
const headers = { Authorization: `Bearer ${token}` };

async function checkAnswer(response, status) {
  assert.equal(response.status, status);
  assert.match(response.headers.get("x-request-id"), /^req_/);
  return response.text();
}

await report("fetch", {
  "GET /health, without a token": async () => {
    const text = await checkAnswer(await fetch(new URL("/health", url)), 200);
    assert.deepEqual(JSON.parse(text), { status: "ok" });
    return text;
  },
  "HEAD /v1/models": async () => {
    const response = await fetch(`${url}/models`, { method: "HEAD", headers });
    assert.equal(await checkAnswer(response, 200), "");
    return response.headers.get("content-type");
  },
  "GET /v1/models, without a token": async () => checkAnswer(await fetch(`${url}/models`), 401),
  "GET /v1/models/absent": async () => {
    const text = await checkAnswer(await fetch(`${url}/models/absent`, { headers }), 404);
    assert.ok(JSON.parse(text).error.message.includes(JSON.stringify(model)), text);
    return text;
  },
});
