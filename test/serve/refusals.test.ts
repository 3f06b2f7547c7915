/** Refused requests: by name, with the status and the error object that client libraries know. */
import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { setTimeout as later } from "node:timers/promises";

import test from "ava";
import OpenAI from "openai";

import { rand } from "../../src/index.js";
import { ADAPTERS, adaptedModel, BASE, serving, TOKEN, until } from "./serving.js";

interface Refused {
  error: { message: string; type: string; param: string | null; code: string | null };
}

const MESSAGES = [{ role: "user", content: "a" }];

test("parameters that are wrong, unknown or not supported are refused by name", async (t) => {
  const { post, client } = await serving(t, { maxTexts: 4 });
  const chat = { model: BASE, messages: MESSAGES, max_tokens: 2 };
  const cases: [path: string, body: object, param: string | null, message: RegExp, status?: number][] = [
    ["/chat/completions", {}, "model", /you must provide model/],
    ["/chat/completions", { ...chat, model: 3 }, "model", /must be a string, got 3/],
    [
      "/chat/completions",
      { ...chat, model: "x" },
      "model",
      /no model "x"; this server has "base", "ada", "ben"/,
      404,
    ],
    ["/chat/completions", { model: BASE }, "messages", /you must provide messages/],
    ["/chat/completions", { ...chat, messages: [] }, "messages", /empty/],
    ["/chat/completions", { ...chat, messages: "hi" }, "messages", /array of messages/],
    ["/chat/completions", { ...chat, messages: [{ role: "wizard", content: "a" }] }, "messages", /role/],
    ["/chat/completions", { ...chat, messages: [{ role: "user", content: 3 }] }, "messages", /content/],
    [
      "/chat/completions",
      { ...chat, messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] },
      "messages",
      /image_url/,
    ],
    ["/chat/completions", { ...chat, temperature: 3 }, "temperature", /a number from 0 to 2, got 3/],
    ["/chat/completions", { ...chat, temperature: "1" }, "temperature", /got "1"/],
    ["/chat/completions", { ...chat, top_p: 0 }, "top_p", /above 0 and at most 1/],
    ["/chat/completions", { ...chat, max_tokens: 0 }, "max_tokens", /at least 1, got 0/],
    ["/chat/completions", { ...chat, max_tokens: 1.5 }, "max_tokens", /whole number/],
    ["/chat/completions", { ...chat, max_completion_tokens: 3 }, "max_tokens", /give one of them/],
    ["/chat/completions", { ...chat, seed: 0.5 }, "seed", /a whole number, got 0.5/],
    ["/chat/completions", { ...chat, n: 5 }, "n", /from 1 to 4, got 5/],
    ["/chat/completions", { ...chat, stop: ["a", "b", "c", "d", "e"] }, "stop", /at most 4/],
    ["/chat/completions", { ...chat, stop: "" }, "stop", /1 to 1024 characters/],
    ["/chat/completions", { ...chat, stop: [3] }, "stop", /got 3/],
    ["/chat/completions", { ...chat, stream: "yes" }, "stream", /true or false/],
    ["/chat/completions", { ...chat, stream_options: {} }, "stream_options", /needs stream/],
    [
      "/chat/completions",
      { ...chat, stream: true, stream_options: { include_usage: 1 } },
      "stream_options.include_usage",
      /true or false/,
    ],
    [
      "/chat/completions",
      { ...chat, stream: true, stream_options: { extra: 1 } },
      "stream_options.extra",
      /not supported/,
    ],
    ["/chat/completions", { ...chat, logprobs: 1 }, "logprobs", /true or false/],
    [
      "/chat/completions",
      { ...chat, logprobs: true, top_logprobs: 21 },
      "top_logprobs",
      /from 0 to 20, got 21/,
    ],
    ["/chat/completions", { ...chat, top_logprobs: 2 }, "top_logprobs", /needs logprobs: true/],
    ["/chat/completions", { ...chat, frequency_penalty: 2.5 }, "frequency_penalty", /from -2 to 2, got 2.5/],
    ["/chat/completions", { ...chat, presence_penalty: "1" }, "presence_penalty", /from -2 to 2, got "1"/],
    ["/chat/completions", { ...chat, logit_bias: [1] }, "logit_bias", /must be an object, got an array/],
    [
      "/chat/completions",
      { ...chat, logit_bias: { 9999: 1 } },
      "logit_bias",
      /token ids from 0 to \d+, got "9999"/,
    ],
    [
      "/chat/completions",
      { ...chat, logit_bias: { a: 1 } },
      "logit_bias",
      /token ids from 0 to \d+, got "a"/,
    ],
    ["/chat/completions", { ...chat, logit_bias: { 5: 101 } }, "logit_bias[5]", /from -100 to 100, got 101/],
    [
      "/chat/completions",
      { ...chat, response_format: { type: "json_object" } },
      "response_format",
      /not supported/,
    ],
    ["/chat/completions", { ...chat, tool_choice: "required" }, "tool_choice", /not supported/],
    [
      "/chat/completions",
      { ...chat, tool_choice: { type: "function", function: { name: "f" } } },
      "tool_choice",
      /not supported/,
    ],
    [
      "/chat/completions",
      { ...chat, tools: [{ type: "function", function: { name: "f" } }] },
      "tools",
      /template ignores tools/,
    ],
    ["/chat/completions", { ...chat, tools: "f(" }, "tools", /JSON/],
    ["/chat/completions", { ...chat, functions: [] }, "functions", /not supported; leave it out/],
    ["/chat/completions", { ...chat, verbosity: "low" }, "verbosity", /other than "medium" is not supported/],
    ["/chat/completions", { ...chat, reasoning_effort: 3 }, "reasoning_effort", /must be a string, got 3/],
    ["/chat/completions", { ...chat, web_search_options: {} }, "web_search_options", /not supported/],
    ["/chat/completions", { ...chat, audio: { voice: "alloy" } }, "audio", /not supported/],
    [
      "/chat/completions",
      { ...chat, messages: [...MESSAGES, { role: "assistant" }] },
      "messages",
      /\[1\]\.content must be a string/,
    ],
    [
      "/chat/completions",
      { ...chat, messages: [...MESSAGES, { role: "user", content: null }] },
      "messages",
      /\[1\]\.content must be a string/,
    ],
    ["/chat/completions", { ...chat, frobnicate: 1 }, "frobnicate", /unknown parameter: "frobnicate"/],
    ["/chat/completions", { ...chat, __proto__x: 1 }, "__proto__x", /unknown parameter/],
    [
      "/chat/completions",
      { ...chat, messages: [{ role: "user", content: "a".repeat(400) }] },
      "messages",
      /reads at most 255/,
    ],
    ["/completions", { model: BASE }, "prompt", /you must provide prompt/],
    ["/completions", { model: BASE, prompt: {} }, "prompt", /a text or token ids/],
    ["/completions", { model: BASE, prompt: [] }, "prompt", /1 to 4 prompts/],
    ["/completions", { model: BASE, prompt: [1, 9999] }, "prompt", /token ids from 0 to/],
    ["/completions", { model: BASE, prompt: [[1], [-1]] }, "prompt", /token ids from 0 to/],
    ["/completions", { model: BASE, prompt: ["a", 1] }, "prompt", /a text or token ids/],
    ["/completions", { model: BASE, prompt: ["a", "b"], n: 3 }, "n", /at most 4 texts, got 6/],
    ["/completions", { model: BASE, prompt: "a", echo: true }, "echo", /not supported/],
    ["/completions", { model: BASE, prompt: "a", best_of: 3 }, "best_of", /not supported/],
    ["/completions", { model: BASE, prompt: "a", logprobs: true }, "logprobs", /from 0 to 20/],
    ["/completions", { model: BASE, prompt: "a", suffix: "b" }, "suffix", /not supported/],
    ["/completions", { model: BASE, prompt: "a", messages: MESSAGES }, "messages", /unknown parameter/],
  ];
  for (const [path, body, param, message, status = 400] of cases) {
    const answer = await post(path, body);
    const { error } = (await answer.json()) as Refused;
    const shown = JSON.stringify(body);
    t.is(answer.status, status, shown);
    t.regex(error.message, message, shown);
    t.is(error.param, param, shown);
    t.is(error.type, "invalid_request_error");
    t.deepEqual(Object.keys(error), ["message", "type", "param", "code"]);
  }
  // Parameters without an effect are no error.
  const neutral = {
    ...chat,
    ...{
      frequency_penalty: 0,
      presence_penalty: null,
      logprobs: false,
      logit_bias: {},
      user: "me",
      store: false,
    },
    ...{
      response_format: { type: "text" },
      tool_choice: "none",
      parallel_tool_calls: true,
      modalities: ["text"],
    },
  };
  t.is((await post("/chat/completions", neutral)).status, 200);
  const long = client.chat.completions.create({
    model: BASE,
    messages: [{ role: "user", content: "a".repeat(400) }],
  });
  const error = await t.throwsAsync(long, { instanceOf: OpenAI.BadRequestError });
  t.is((error as InstanceType<typeof OpenAI.BadRequestError>).code, "context_length_exceeded");
});

test("bodies that are no JSON object, too large, too deep or of another type are refused", async (t) => {
  const { post, server } = await serving(t, { maxBody: 1000 });
  const small = JSON.stringify({ model: BASE, prompt: "a", max_tokens: 1 });
  const cases: [
    body: string | Uint8Array,
    status: number,
    message: RegExp,
    headers?: Record<string, string>,
  ][] = [
    ["", 400, /not valid JSON/],
    ["{", 400, /not valid JSON/],
    ["[]", 400, /must be a JSON object/],
    ["null", 400, /must be a JSON object/],
    [new Uint8Array([0x7b, 0xff, 0x7d]), 400, /not valid JSON in UTF-8/],
    [`{"a":${"[".repeat(100)}${"]".repeat(100)}}`, 400, /nested deeper than 64/],
    [" ".repeat(1001), 413, /larger than 1000 bytes/],
    [small, 415, /Content-Type header must be application\/json/, { "Content-Type": "text/plain" }],
    [small, 415, /application\/json/, { "Content-Type": "application/x-www-form-urlencoded" }],
    [small, 415, /compressed/, { "Content-Encoding": "gzip" }],
  ];
  for (const [body, status, message, headers = {}] of cases) {
    const answer = await post("/completions", "", { body, headers });
    t.is(answer.status, status, String(body).slice(0, 40));
    t.regex(((await answer.json()) as Refused).error.message, message);
  }
  t.is(
    (await post("/completions", small, { headers: { "Content-Type": "Application/JSON; charset=utf-8" } }))
      .status,
    200,
  );
  // A body without a length, which never ends: it is still answered, and the connection closes.
  const url = new URL(`${server.url}/completions`);
  const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
  const endless = request(url, { method: "POST", headers: { ...headers, "transfer-encoding": "chunked" } });
  endless.on("error", () => {});
  const sending = setInterval(() => endless.write("x".repeat(500)), 1);
  t.teardown(() => clearInterval(sending));
  const [response] = (await once(endless, "response")) as [import("node:http").IncomingMessage];
  t.is(response.statusCode, 413);
  response.resume();
  await once(endless, "close");
});

test("a request without the token, or from another host or origin, is refused without reading its body", async (t) => {
  const { server, lines } = await serving(t);
  const url = new URL(server.url);
  const ask = (path: string, headers: Record<string, string>, method = "GET"): Promise<[number, string]> =>
    new Promise((resolve, reject) => {
      const asked = request({ host: url.hostname, port: url.port, path, method, headers }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => (text += part));
        response.on("end", () => resolve([response.statusCode ?? 0, text]));
      });
      asked.on("error", reject).end();
    });
  const good = { authorization: `Bearer ${TOKEN}` };
  const paths = ["/v1/models", "/v1/chat/completions", "/", "/v1/../v1/models", "//v1/models", "/etc/passwd"];
  const wrong: [number, Record<string, string>][] = [
    [401, {}],
    [401, { authorization: "" }],
    [401, { authorization: "Bearer" }],
    [401, { authorization: `Basic ${TOKEN}` }],
    [401, { authorization: `Bearer ${TOKEN}x` }],
    [401, { authorization: `Bearer ${TOKEN.slice(0, -1)}` }],
    [401, { authorization: `Bearer ${"x".repeat(8000)}` }],
    [403, { ...good, host: "evil.example" }],
    [403, { ...good, host: `evil.example:${url.port}` }],
    [403, { ...good, host: "127.0.0.1:1" }],
    [403, { ...good, origin: "http://evil.example" }],
    [403, { ...good, origin: "null" }],
    [403, { ...good, "sec-fetch-site": "cross-site" }],
  ];
  for (const path of paths)
    for (const [status, headers] of wrong) {
      const [got, text] = await ask(path, headers, path.endsWith("completions") ? "POST" : "GET");
      t.is(got, status, `${path} ${JSON.stringify(headers)}`);
      t.false(text.includes(TOKEN));
    }
  for (const host of ["127.0.0.1", "localhost", "[::1]"])
    t.is((await ask("/v1/models", { ...good, host: `${host}:${url.port}` }))[0], 200, host);
  for (const [path, method, status] of [
    ["/v1/models", "POST", 405],
    ["/v1/models?x=1", "GET", 200],
    ["/v1/models/%2e%2e", "GET", 404],
    ["/v1/models/../../etc/passwd", "GET", 404],
    ["/v1/../v1/models", "GET", 404],
    ["/v1/completions", "GET", 405],
    ["/v1/completions/", "POST", 404],
    ["/v1/embeddings", "POST", 404],
    ["/v1/models", "OPTIONS", 405],
    ["*", "OPTIONS", 404],
  ] as const)
    t.is((await ask(path, good, method))[0], status, `${method} ${path}`);
  t.true(lines.every((line) => !line.includes("passwd") && !line.includes(TOKEN)));
});

test("pages of an allowed origin may send requests, and others may not", async (t) => {
  const origin = "http://localhost:5173";
  const { server } = await serving(t, { origins: [origin] });
  const preflight = await fetch(`${server.url}/chat/completions`, {
    method: "OPTIONS",
    headers: { origin, "access-control-request-headers": "authorization, content-type" },
  });
  t.is(preflight.status, 204);
  t.is(preflight.headers.get("access-control-allow-origin"), origin);
  t.is(preflight.headers.get("access-control-allow-headers"), "authorization, content-type");
  const headers = { Authorization: `Bearer ${TOKEN}` };
  const own = await fetch(`${server.url}/models`, { headers: { ...headers, origin } });
  t.is(own.status, 200);
  t.is(own.headers.get("access-control-allow-origin"), origin);
  const without = await fetch(`${server.url}/models`, { headers: { origin } });
  t.is(without.status, 401);
  const other = await fetch(`${server.url}/models`, {
    headers: { ...headers, origin: "http://localhost:5174" },
  });
  t.is(other.status, 403);
  t.is(other.headers.get("access-control-allow-origin"), null);
});

test("requests beyond the queue's size are refused with 429, and later ones are served", async (t) => {
  const { server, client } = await serving(t, { maxConcurrent: 2, maxQueue: 1, maxTokens: 240 });
  const asked = { model: BASE, prompt: "a", temperature: 0, max_tokens: 240 };
  const all = await Promise.allSettled(Array.from({ length: 6 }, () => client.completions.create(asked)));
  const refused = all.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
  t.is(refused.length, 3);
  for (const error of refused) {
    if (!(error instanceof OpenAI.RateLimitError)) throw error;
    t.is(error.code, "queue_full");
    t.is(error.type, "rate_limit_error");
    t.is(error.headers?.get("retry-after"), "1");
  }
  t.deepEqual(server.load, { waiting: 0, running: 0 });
  t.is((await client.completions.create({ ...asked, max_tokens: 1 })).usage?.completion_tokens, 1);
});

test("an internal fault is logged, and the client gets none of its text", async (t) => {
  const model = await adaptedModel();
  Object.assign(model.tokenizer ?? {}, {
    encodeRows: () => Promise.reject(new Error("a path of this machine")),
  });
  const { post, lines } = await serving(t, { model });
  const response = await post("/completions", { model: "ada", prompt: "a", max_tokens: 1 });
  t.is(response.status, 500);
  t.deepEqual(await response.json(), {
    error: {
      message: "internal error; the server's log has it",
      type: "server_error",
      param: null,
      code: null,
    },
  });
  t.true(
    lines.some((line) => line.includes("a path of this machine")),
    lines.join("\n"),
  );
});

test("an adapter with weights that are not finite ends only its own requests", async (t) => {
  const model = await adaptedModel();
  for (const [path, parameter] of model.namedParameters())
    if (path.includes("lora_B.ben")) parameter.copy(rand(parameter.shape, { device: "cpu" }).mul(NaN));
  const { client, post, lines } = await serving(t, { model });
  const asked = { prompt: "a", temperature: 0, max_tokens: 40 };
  const good = client.completions.create({ model: "ada", ...asked });
  const error = await t.throwsAsync(client.completions.create({ model: "ben", ...asked }), {
    instanceOf: OpenAI.InternalServerError,
  });
  t.regex(error?.message ?? "", /NaN/);
  t.is((await good).usage?.completion_tokens, 40);
  const streamed = await post("/completions", { model: "ben", ...asked, stream: true });
  t.is(streamed.status, 500);
  t.true(
    lines.some((line) => /500 ben 1\+0 tokens ERR_NOT_FINITE/.test(line)),
    lines.join("\n"),
  );
});

test("clients that send slowly, or nothing, are disconnected", async (t) => {
  const { server } = await serving(t, { headersMs: 500, requestMs: 1000 });
  const { port } = new URL(server.url);
  const head =
    `POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${TOKEN}\r\n` +
    "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
  for (const [name, start] of [
    ["headers", "POST /v1/completions HTTP/1.1\r\nHost: "],
    ["body", head],
  ] as const) {
    const socket: Socket = connect(Number(port), "127.0.0.1");
    socket.on("error", () => {});
    socket.resume();
    socket.write(start);
    const dripping = setInterval(() => socket.write("a"), 100);
    const begun = performance.now();
    await once(socket, "close");
    clearInterval(dripping);
    t.true(performance.now() - begun < 6000, name);
  }
  t.deepEqual(server.load, { waiting: 0, running: 0 });
});

test("malformed or too many headers end the connection, and the server continues", async (t) => {
  const { server, client } = await serving(t);
  const { port } = new URL(server.url);
  for (const bytes of [
    "GET / HTTP/1.1\r\n\r\n",
    `GET /v1/models HTTP/1.1\r\nHost: a\r\n${"X: y\r\n".repeat(5000)}\r\n`,
    `GET /v1/models HTTP/1.1\r\nHost: a\r\nX: ${"y".repeat(50_000)}\r\n\r\n`,
    "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "\0\0\0\0",
    "GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \x01\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  ]) {
    const socket = connect(Number(port), "127.0.0.1");
    socket.on("error", () => {});
    let text = "";
    socket.setEncoding("utf8").on("data", (part: string) => (text += part));
    socket.end(bytes);
    await once(socket, "close");
    t.regex(text, /^(HTTP\/1\.1 4\d\d |$)/, JSON.stringify(bytes.slice(0, 60)));
  }
  t.is((await client.models.list()).data.length, 1 + ADAPTERS.length);
});

test("a client may disconnect at any moment", async (t) => {
  const { server, client } = await serving(t, { maxConcurrent: 2 });
  const { port } = new URL(server.url);
  const body = JSON.stringify({ model: BASE, prompt: "a", max_tokens: 60, temperature: 0, stream: true });
  const whole =
    `POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${TOKEN}\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  for (const [bytes, wait] of [
    ...[1, 30, whole.length - body.length, whole.length - 1].map((end) => [whole.slice(0, end), 20] as const),
    ...[0, 1, 3, 10, 30].map((ms) => [whole, ms] as const),
  ]) {
    const socket = connect(Number(port), "127.0.0.1");
    socket.on("error", () => {});
    socket.write(bytes);
    await later(wait);
    socket.destroy();
  }
  await until(() => server.load.running === 0 && server.load.waiting === 0, "the end of all");
  t.is(
    (await client.completions.create({ model: BASE, prompt: "a", max_tokens: 3, temperature: 0 })).usage
      ?.completion_tokens,
    3,
  );
});

test("at shutdown running answers end, waiting requests are refused, and late ones are cancelled", async (t) => {
  const { server, client } = await serving(t, { maxConcurrent: 1, maxTokens: 240 });
  const asked = { model: BASE, prompt: "a", temperature: 0, max_tokens: 150 };
  const runs = client.completions.create(asked);
  await until(() => server.load.running === 1, "a running request");
  const waits = client.completions.create(asked);
  await until(() => server.load.waiting === 1, "a waiting request");
  const { port } = new URL(server.url);
  const open = connect(Number(port), "127.0.0.1");
  let late = "";
  open.setEncoding("utf8").on("data", (part: string) => (late += part));
  open.on("error", () => {});
  // Its headers are incomplete, so the server keeps the connection during shutdown.
  open.write(`POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Length: 2\r\n`);
  await client.models.list();
  const closing = server.close(10_000);
  t.is(new URL(server.url).port, port);
  open.write(`Authorization: Bearer ${TOKEN}\r\nContent-Type: application/json\r\n\r\n{}`);
  await until(() => late.includes("\r\n\r\n"), "an answer to a request that came as the server stops");
  t.regex(late, /^HTTP\/1\.1 503 /);
  open.destroy();
  const refused = await t.throwsAsync(waits, { instanceOf: OpenAI.InternalServerError });
  t.regex(refused?.message ?? "", /503 the server is stopping/);
  t.is((await runs).usage?.completion_tokens, 150);
  await closing;
  await t.throwsAsync(client.models.list(), { instanceOf: OpenAI.APIConnectionError });

  const other = await serving(t, { maxTokens: 240 });
  const stream = await other.client.completions.create({ ...asked, max_tokens: 240, stream: true });
  let ends: Promise<void> | undefined;
  await t.throwsAsync(
    async () => {
      for await (const _ of stream) ends ??= other.server.close(0);
    },
    { message: /the server is stopping/ },
  );
  await ends;
});

test("no line of the log has text of a prompt or an answer, and each request has one", async (t) => {
  const { client, post, lines } = await serving(t);
  const secret = "zanzibar";
  const { choices } = await client.chat.completions.create({
    model: BASE,
    messages: [{ role: "user", content: secret }],
    temperature: 0,
    max_tokens: 30,
  });
  await post("/completions", { model: secret, prompt: secret });
  await post("/completions", { model: BASE, prompt: secret, [secret]: 1 });
  await post(`/${secret}`, {});
  await until(() => lines.length === 4, "four lines");
  const log = lines.join("\n");
  t.false(log.includes(secret));
  t.false(log.includes(String(choices[0]?.message.content).slice(0, 10)));
  t.regex(
    lines[0] as string,
    /^POST \/v1\/chat\/completions 200 base \d+\+30 tokens length \d+\.\d{3}s req_[\da-f]{32}$/,
  );
});
