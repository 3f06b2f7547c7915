/** Access to the server, and clients that leave, read nothing or send a refused body. */
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { setTimeout as later } from "node:timers/promises";

import test from "ava";
import OpenAI from "openai";

import type { Tokenizer } from "../../src/index.js";
import { EventStream } from "../../src/serve/event-stream.js";
import { adaptedModel, BASE, serving, TOKEN, until } from "./serving.js";

test("the server listens only on its host", async (t) => {
  const { server } = await serving(t);
  // Another address of this machine.
  const socket = connect({ host: "127.0.0.2", port: Number(new URL(server.url).port) });
  t.teardown(() => socket.destroy());
  await t.throwsAsync(once(socket, "connect"), { code: "ECONNREFUSED" });
});

test("a client that leaves before its prompt is encoded gets no generation", async (t) => {
  const model = await adaptedModel();
  const { server, client, lines } = await serving(t, { model, maxTokens: 240 });
  const tokenizer = model.tokenizer as Tokenizer;
  const encodeRows = tokenizer.encodeRows.bind(tokenizer);
  const left = new AbortController();
  const encoded = new Promise<void>((resolve) => {
    tokenizer.encodeRows = async (...args) => {
      left.abort();
      await until(() => lines.length === 1, "the client's end");
      const rows = await encodeRows(...args);
      setImmediate(resolve);
      return rows;
    };
  });
  const asked = client.completions.create(
    { model: BASE, prompt: "a", temperature: 0, max_tokens: 240 },
    { signal: left.signal },
  );
  await t.throwsAsync(async () => asked, { instanceOf: OpenAI.APIUserAbortError });
  await encoded;
  t.deepEqual(server.load, { waiting: 0, running: 0 });
});

test("a client that does not read its stream is disconnected after some megabytes", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  t.teardown(() => server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const socket = connect(port, "127.0.0.1");
  t.teardown(() => socket.destroy());
  socket.pause();
  socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const [, response] = (await once(server, "request")) as [unknown, ServerResponse];
  response.on("error", () => {});
  const stream = new EventStream(response);
  const event = { text: "x".repeat(1 << 20) };
  stream.send(event);
  t.false(response.destroyed);
  for (let sent = 1; sent < 16 && !response.destroyed; sent++) stream.send(event);
  t.true(response.destroyed);
});

test("a client that sends a refused body to its end gets the answer", async (t) => {
  const { server } = await serving(t, { maxBody: 1000 });
  const { port } = new URL(server.url);
  const socket = connect(Number(port), "127.0.0.1");
  let [text, failure] = ["", ""];
  socket.on("error", (error) => (failure = error.message)).setEncoding("utf8");
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${TOKEN}\r\n` +
      "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
  );
  // The client reads nothing before it has sent everything.
  for (let i = 0; i < 30 && !socket.destroyed; i++) {
    socket.write(`400\r\n${"x".repeat(1024)}\r\n`);
    await later(5);
  }
  socket.write("0\r\n\r\n");
  await later(20);
  t.is(failure, "");
  socket.on("data", (part: string) => (text += part));
  await once(socket, "close");
  t.regex(text, /^HTTP\/1\.1 413 [^]*connection: close[^]*larger than 1000 bytes/i);
});
