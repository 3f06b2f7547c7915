/** What every endpoint has: `HEAD`, request ids, and the errors of names and hosts; and the health check. */
import { request } from "node:http";
import { connect } from "node:net";

import test from "ava";

import { ADAPTERS, BASE, serving, TOKEN, until } from "./serving.js";

const HEADERS = { Authorization: `Bearer ${TOKEN}` };

test("/health needs no token, and answers 503 while the server stops", async (t) => {
  const { server, client } = await serving(t, { maxTokens: 240 });
  const url = new URL("/health", server.url);
  const answer = await fetch(url);
  t.is(answer.status, 200);
  t.deepEqual(await answer.json(), { status: "ok" });
  t.is((await fetch(url, { method: "POST" })).status, 405);
  t.is((await fetch(url, { headers: { origin: "http://evil.example" } })).status, 403);

  const runs = client.completions.create({ model: BASE, prompt: "a", temperature: 0, max_tokens: 240 });
  await until(() => server.load.running === 1, "a running request");
  // A stopping server accepts no connection, but completes a request whose headers have begun.
  const socket = connect(Number(url.port), "127.0.0.1");
  t.teardown(() => socket.destroy());
  let late = "";
  socket.setEncoding("utf8").on("data", (part: string) => (late += part));
  socket.write(`GET /health HTTP/1.1\r\nHost: ${url.host}\r\n`);
  await fetch(url);
  const closing = server.close(10_000);
  socket.write("\r\n");
  await until(() => late.includes("stopping"), "an answer of the stopping server");
  t.regex(late, /^HTTP\/1\.1 503 /);
  await runs;
  await closing;
});

test("HEAD has the headers of GET, and no body", async (t) => {
  const { server } = await serving(t);
  for (const path of ["/health", "/v1/models", `/v1/models/${BASE}`]) {
    const url = new URL(path, server.url);
    const [get, head] = [
      await fetch(url, { headers: HEADERS }),
      await fetch(url, { method: "HEAD", headers: HEADERS }),
    ];
    t.is(head.status, 200, path);
    t.is(head.headers.get("content-length"), get.headers.get("content-length"), path);
    t.true(Number(get.headers.get("content-length")) > 0);
    t.is(await head.text(), "");
  }
  const wrong = await fetch(`${server.url}/completions`, { method: "HEAD", headers: HEADERS });
  t.is(wrong.status, 405);
  t.is(wrong.headers.get("allow"), "POST");
});

test("each response has a new x-request-id, which ends its line in the log", async (t) => {
  const { server, post, lines } = await serving(t);
  const asked = { model: BASE, prompt: "a", max_tokens: 2 };
  const responses = [
    await fetch(`${server.url}/models`, { headers: HEADERS }),
    await fetch(`${server.url}/models`),
    await fetch(`${server.url}/nothing`, { headers: HEADERS }),
    await post("/completions", asked),
    await post("/completions", { ...asked, stream: true }),
    await post("/completions", { ...asked, top_p: 0 }),
  ];
  for (const response of responses) await response.text();
  await until(() => lines.length === responses.length, "a line for each");
  const ids = responses.map(({ headers }) => headers.get("x-request-id") ?? "");
  t.is(new Set(ids).size, responses.length);
  for (const [i, id] of ids.entries()) {
    t.regex(id, /^req_[\da-f]{32}$/);
    t.true(lines[i]?.endsWith(` ${id}`), `${lines[i]}`);
  }
});

test("an unknown name in /v1/models/NAME is answered with the names", async (t) => {
  const { server } = await serving(t);
  const names = [BASE, ...ADAPTERS].map((name) => JSON.stringify(name)).join(", ");
  for (const [path, name] of [
    ["absent", "absent"],
    ["a%20b", "a b"],
    ["%zz", "%zz"],
  ] as const) {
    const answer = await fetch(`${server.url}/models/${path}`, { headers: HEADERS });
    t.is(answer.status, 404);
    const { error } = (await answer.json()) as { error: { message: string; code: string } };
    t.is(error.message, `there is no model ${JSON.stringify(name)}; this server has ${names}`);
    t.is(error.code, "model_not_found");
  }
});

test("the error of a wrong host lists each address once", async (t) => {
  for (const host of ["127.0.0.1", "localhost"]) {
    const { server } = await serving(t, { host });
    const { port, hostname } = new URL(server.url);
    const text = await new Promise<string>((resolve, reject) => {
      request(
        { host: hostname, port, path: "/v1/models", headers: { ...HEADERS, host: "a" } },
        (response) => {
          let body = "";
          response.setEncoding("utf8").on("data", (part: string) => (body += part));
          response.on("end", () => resolve(body));
        },
      )
        .on("error", reject)
        .end();
    });
    const { error } = JSON.parse(text) as { error: { message: string } };
    const listed = error.message.replace("the Host header must be ", "").split(" or ");
    t.deepEqual(listed.sort(), [`127.0.0.1:${port}`, `[::1]:${port}`, `localhost:${port}`]);
  }
});
