/** The dashboard's server: authorised requests, messages, and that no event is lost. */
import { once } from "node:events";
import { appendFileSync, cpSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";

import test from "ava";

import { Dashboard } from "../../src/dashboard/server.js";
import { openFolderSource, openLiveSource } from "../../src/dashboard/sources.js";
import { parsePositions } from "../../src/dashboard/stream.js";
import { formatEvent } from "../../src/runs/events-file.js";
import { identifyProcess } from "../../src/runs/process-identity.js";
import { temporary } from "../hashed.js";
import { ask, served, stepsOf, upTo, watch, type Message } from "./asked.js";
import { NOON, started, stepped, writeRun } from "../runs/written.js";

test("only its own address, its own page and its token can make requests", async (t) => {
  const home = temporary();
  writeRun(join(home, "a"), [started(1), stepped(1, 1)]);
  const { url } = await served(t, openFolderSource(home));
  const { host, port, pathname } = new URL(url);
  t.is(host, `127.0.0.1:${port}`);
  t.regex(pathname, /^\/[\w-]{43}\/$/);
  const paths = ["", "page.js", "page.css", "start.js", "runs", "events?run=a", "stop", "absent"];
  const wrong: [string, string, Record<string, string>][] = [
    ["no token", `http://${host}/`, {}],
    ["a wrong token", `http://${host}/${"A".repeat(43)}/`, {}],
    ["a shorter one", url.replace(/.\/$/, "/"), {}],
    ["a longer one", url.replace(/\/$/, "A/"), {}],
    ["a foreign host", url, { host: `evil.example:${port}` }],
    ["a name of this machine", url, { host: `localhost:${port}` }],
    ["another port", url, { host: "127.0.0.1:1" }],
    ["another origin", url, { origin: "http://evil.example" }],
    ["another port's origin", url, { origin: "http://127.0.0.1:1" }],
    ["a page without an origin", url, { origin: "null" }],
    ["another site", url, { "sec-fetch-site": "cross-site" }],
    ["another port of this machine", url, { "sec-fetch-site": "same-site" }],
  ];
  for (const [name, base, headers] of wrong) {
    for (const path of paths) {
      for (const method of ["GET", "POST"]) {
        const { status, text } = await ask(`${base}${path}`, { headers, method });
        t.is(status, 403, `${name}: ${method} ${path}`);
        t.false(text.includes(pathname.slice(1, -1)), name);
      }
    }
  }
  const own: Record<string, string>[] = [
    {},
    { origin: `http://${host}` },
    { "sec-fetch-site": "none" },
    { "sec-fetch-site": "same-origin" },
  ];
  for (const headers of own)
    t.is((await ask(`${url}runs`, { headers })).status, 200, JSON.stringify(headers));
  for (const [path, method, status] of [
    ["absent", "GET", 404],
    ["../runs", "GET", 403],
    ["runs/x", "GET", 404],
    ["page.js", "POST", 405],
    ["runs", "DELETE", 405],
    ["stop", "GET", 405],
    ["stop", "POST", 409],
    ["events", "GET", 400],
    [`events?${"run=a&".repeat(17)}`, "GET", 400],
  ] as const)
    t.is((await ask(`${url}${path}`, { method })).status, status, `${method} ${path}`);
});

test("the server listens on 127.0.0.1 only, and every answer keeps browsers from loading anything from elsewhere", async (t) => {
  const { url } = await served(t, openFolderSource(temporary()));
  const { port } = new URL(url);
  // Another address of this machine.
  await t.throwsAsync(
    new Promise((resolve, reject) => {
      connect({ host: "127.0.0.2", port: Number(port) }, () => resolve(undefined)).on("error", reject);
    }),
    { code: "ECONNREFUSED" },
  );
  for (const path of ["", "page.js", "page.css", "runs", "absent"]) {
    const { headers, text } = await ask(`${url}${path}`);
    const policy = String(headers["content-security-policy"]);
    t.true(policy.startsWith("default-src 'none';"), path);
    for (const rule of [
      "script-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      "require-trusted-types-for 'script'",
    ])
      t.true(policy.split("; ").includes(rule), `${path}: ${rule}`);
    for (const source of policy.matchAll(/(?:https?:|\*|unsafe)/g)) t.fail(`${path}: ${source[0]}`);
    t.is(headers["x-content-type-options"], "nosniff");
    t.is(headers["referrer-policy"], "no-referrer");
    t.is(headers["cross-origin-resource-policy"], "same-origin");
    t.is(headers["cache-control"], "no-store");
    t.is(headers["access-control-allow-origin"], undefined);
    // The bundle contains uPlot's licence text.
    if (path.startsWith("page."))
      t.regex(text, /Copyright \(c\) 2022 Leon Sorokin[^]*Permission is hereby granted/);
  }
});

test("a viewer gets each step once: initially, later, after a disconnection, and with another viewer", async (t) => {
  const home = temporary();
  const file = writeRun(join(home, "a"), [started(3000), ...upTo(1000).map((n) => stepped(n, 3000))]);
  const { url } = await served(t, openFolderSource(home));
  await ask(`${url}runs`);
  const address = `${url}events?run=a`;
  const count = (n: number) => (messages: readonly Message[]) => stepsOf(messages).length >= n;
  const both = [watch(address, count(1500)), watch(address, count(1500))];
  await later(100);
  for (const n of upTo(1500, 1001)) {
    // Lines are split at any byte.
    const line = formatEvent(stepped(n, 3000), NOON);
    appendFileSync(file, line.subarray(0, n % line.length));
    if (n % 100 === 0) await later(30);
    appendFileSync(file, line.subarray(n % line.length));
  }
  for (const messages of await Promise.all(both)) {
    t.deepEqual(stepsOf(messages), upTo(1500));
    t.deepEqual(messages.map(({ begin }) => begin).indexOf(true), 0);
    t.is(messages.filter(({ begin }) => begin).length, 1);
  }
  // Disconnected after any message, and reconnected with its id, by either way of sending it.
  const [first] = await watch(address, (messages) => messages.length === 1);
  const seen = stepsOf([first as Message]);
  t.true(seen.length > 50 && seen.length < 1000, String(seen.length));
  const rest = await watch(address, count(1500 - seen.length), { "last-event-id": first?.id as string });
  t.deepEqual([...seen, ...stepsOf(rest)], upTo(1500));
  t.true(rest.every(({ begin }) => !begin));
  const from = `${address}&from=${encodeURIComponent(first?.id as string)}`;
  t.deepEqual(stepsOf(await watch(from, count(1500 - seen.length))), stepsOf(rest));
});

test("a replaced file is read from its start; several runs share one connection", async (t) => {
  const home = temporary();
  writeRun(join(home, "a"), [started(3), stepped(1, 3), stepped(2, 3)]);
  writeRun(join(home, "b"), [started(3), stepped(1, 3)], { lineage: "0123456789ac" });
  const { url } = await served(t, openFolderSource(home));
  await ask(`${url}runs`);
  let seen = (): void => {};
  const both = new Promise<void>((resolve) => (seen = resolve));
  const watching = watch(`${url}events?run=a&run=b`, (messages) => {
    if (messages.length === 2) seen();
    return messages.length === 3;
  });
  await both;
  // Like a run resumed from step 1, whose file happens to be longer.
  writeRun(join(home, "a"), [
    started(3),
    ...upTo(3).map((n) => stepped(n, 3)),
    ...upTo(9).map(() => started(3)),
  ]);
  const messages = await watching;
  const told = messages.map(({ run, begin, steps }) => ({ run, begin, steps }));
  t.deepEqual(told, [
    { run: "a", begin: true, steps: [1, 2] },
    { run: "b", begin: true, steps: [1] },
    { run: "a", begin: true, steps: [1, 2, 3] },
  ]);
});

test("an invalid id means the beginning", (t) => {
  const none = { identity: "", offset: 0 };
  t.deepEqual(parsePositions("", 2), [none, none]);
  t.deepEqual(parsePositions("ab-12:34,", 2), [{ identity: "ab-12", offset: 34 }, none]);
  for (const id of ["x", "ab-12:-1", "ab-12:1e9", "ab:3", "ab-12:3x", `ab-12:${"9".repeat(16)}`])
    t.deepEqual(parsePositions(id, 1), [none], id);
});

test("a slow reader blocks no other, and the server buffers nothing for it", async (t) => {
  const home = temporary();
  const steps = upTo(100_000).map((n) => stepped(n, 100_000));
  writeRun(join(home, "a"), [started(100_000), ...steps]);
  const { url } = await served(t, openFolderSource(home));
  await ask(`${url}runs`);
  const { port, host, pathname } = new URL(url);
  const slow = connect({ host: "127.0.0.1", port: Number(port) });
  /** Returns the bytes of JavaScript's values and of their external memory. */
  const held = (): number => {
    globalThis.gc?.();
    const { heapUsed, external, arrayBuffers } = process.memoryUsage();
    return heapUsed + external + arrayBuffers;
  };
  const before = held();
  slow.pause().write(`GET ${pathname}events?run=a HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  // The first bytes have arrived, and no more are read.
  await once(slow, "readable");
  await later(1500);
  // Some 26 MB of lines are available.
  t.true(held() - before < 8e6, `${held() - before} bytes`);
  const messages = await watch(`${url}events?run=a`, (some) => (some.at(-1)?.steps.at(-1) ?? 0) === 100_000);
  t.deepEqual(stepsOf(messages), upTo(100_000));
  slow.destroy();
});

test("an occupied port, and a folder that is removed", async (t) => {
  const home = temporary();
  const { url } = await served(t, openFolderSource(join(home, "x")));
  const port = Number(new URL(url).port);
  const taken = await t.throwsAsync(Dashboard.open(openFolderSource(home), { port, holds: true }), {
    code: "ERR_OPTION",
  });
  t.is(
    taken?.message,
    `dashboard: port ${port} is not available (EADDRINUSE); give another port, or none for a free one`,
  );
  const { text } = await ask(`${url}runs`);
  t.deepEqual((JSON.parse(text) as { runs: [] }).runs, []);
  t.regex(text, /there is no such folder/);
});

test("a run of this process: before its file exists, when it is renamed, and when it is removed", async (t) => {
  const home = temporary();
  let file: string | undefined;
  let stopped = 0;
  const source = openLiveSource(
    () => "mine",
    () => file,
    () => stopped++,
  );
  const { url } = await served(t, source);
  const listed = async (): Promise<Record<string, unknown>> => {
    const { runs, ...rest } = JSON.parse((await ask(`${url}runs`)).text) as {
      runs: Record<string, unknown>[];
    };
    return { ...rest, ...runs[0] };
  };
  t.like(await listed(), { title: "mine", stops: true, name: ".", state: "running", step: 0 });
  const watching = watch(`${url}events?run=.`, (messages) => stepsOf(messages).length >= 2);
  await later(300);
  file = writeRun(join(home, "tmp"), [started(2), stepped(1, 2)]);
  const lock = JSON.stringify({ ...identifyProcess(), token: "a" });
  writeFileSync(join(home, "tmp", "run.lock"), lock);
  t.like(await listed(), { step: 1, steps: 2, state: "running" });
  await later(300);
  cpSync(join(home, "tmp"), join(home, "out"), { recursive: true });
  appendFileSync(join(home, "out", "events.jsonl"), formatEvent(stepped(2, 2), NOON));
  file = join(home, "out", "events.jsonl");
  const messages = await watching;
  t.deepEqual(
    messages.map(({ begin, steps }) => ({ begin, steps })),
    [
      { begin: true, steps: [1] },
      { begin: false, steps: [2] },
    ],
  );
  t.is((await ask(`${url}stop`, { method: "POST" })).status, 204);
  t.is(stopped, 1);
  t.like(await listed(), { step: 2, state: "running" });
  rmSync(join(home, "out"), { recursive: true });
  t.like(await listed(), { step: 2, state: "interrupted" });
});

test("the content of a file cannot forge a message", async (t) => {
  const home = temporary();
  const file = writeRun(join(home, "a"), [started(2), stepped(1, 2)]);
  appendFileSync(file, 'torn\r\rdata: {"run":"b"}\r\rid: 1\n');
  appendFileSync(
    file,
    formatEvent({ type: "warning", message: "\r\n\n</script>" } as { type: string }, NOON),
  );
  appendFileSync(file, formatEvent(stepped(2, 2), NOON));
  writeFileSync(join(home, "b"), "");
  const { url } = await served(t, openFolderSource(home));
  await ask(`${url}runs`);
  const raw = await new Promise<string>((resolve, reject) => {
    const asked = request(`${url}events?run=a`, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
        if (text.includes('"step":2')) response.destroy();
      });
      response.on("close", () => resolve(text));
    });
    asked.on("error", reject).end();
  });
  t.is(raw.match(/^id: /gm)?.length, 1);
  t.false(raw.includes("\r"));
  t.is(raw.trimEnd().split("\n\n").length, 2);
});
