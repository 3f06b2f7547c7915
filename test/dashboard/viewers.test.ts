/** Many viewers, idle ones, ones that never read, and ones that request unknown runs. */
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { request, type IncomingMessage, type ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as later } from "node:timers/promises";

import test from "ava";

import { openFolderSource } from "../../src/dashboard/sources.js";
import { EventStream } from "../../src/dashboard/stream.js";
import { formatEvent } from "../../src/runs/events-file.js";
import { temporary } from "../hashed.js";
import { NOON, started, stepped, writeRun } from "../runs/written.js";
import { ask, served, stepsOf, upTo, watch } from "./asked.js";

/** Opens a stream; returns its status, and a function that ends it. */
function opened(url: string): Promise<{ status: number; end: () => void; ended: Promise<void> }> {
  return new Promise((resolve, reject) => {
    const asked = request(url, (response: IncomingMessage) => {
      const ended = new Promise<void>((over) => response.once("close", over));
      response.resume();
      resolve({ status: response.statusCode ?? 0, end: () => asked.destroy(), ended });
    });
    asked.on("error", reject).end();
  });
}

/** Opens a connection that requests a stream and never reads. */
function deaf(url: string): Socket {
  const { host, port, pathname } = new URL(url);
  const socket = connect({ host: "127.0.0.1", port: Number(port) });
  socket.on("error", () => {});
  socket.pause().write(`GET ${pathname}events?run=a HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  return socket;
}

test("sixteen pages watch at once; one more is refused, and admitted once another disconnects", async (t) => {
  const home = temporary();
  writeRun(join(home, "a"), [started(2), stepped(1, 2)]);
  const { url } = await served(t, openFolderSource(home));
  await ask(`${url}runs`);
  const address = `${url}events?run=a`;
  const streams = await Promise.all(upTo(16).map(() => opened(address)));
  t.deepEqual(
    streams.map(({ status }) => status),
    upTo(16).map(() => 200),
  );
  const { status, text } = await ask(address);
  t.is(status, 503);
  t.regex(text, /16 pages are open already; close one/);
  streams[3]?.end();
  let again = await opened(address);
  for (let n = 0; again.status === 503 && n < 50; n++) {
    await later(100);
    again = await opened(address);
  }
  t.is(again.status, 200);
  t.is((await ask(`${url}runs`)).status, 200);
  for (const { end } of [...streams, again]) end();
});

test("there are at most 128 connections; further ones are closed, and the others are answered", async (t) => {
  const { url } = await served(t, openFolderSource(temporary()));
  const { port } = new URL(url);
  const gone = new Set<Socket>();
  const sockets = await Promise.all(
    upTo(150).map(
      () =>
        new Promise<Socket>((resolve) => {
          const socket = connect({ host: "127.0.0.1", port: Number(port) }, () => resolve(socket));
          socket.on("error", () => {});
          socket.on("close", () => gone.add(socket)).resume();
        }),
    ),
  );
  for (let n = 0; gone.size < 22 && n < 50; n++) await later(100);
  t.is(gone.size, 22);
  for (const socket of sockets) socket.destroy();
  for (let n = 0; gone.size < 150 && n < 50; n++) await later(100);
  await later(200);
  t.is((await ask(`${url}runs`)).status, 200);
});

test("the server closes at once with pages open, even if one never reads", async (t) => {
  const home = temporary();
  writeRun(join(home, "a"), [started(9e4), ...upTo(50_000).map((n) => stepped(n, 9e4))]);
  const dashboard = await served(t, openFolderSource(home));
  await ask(`${dashboard.url}runs`);
  const [stream, silent] = [await opened(`${dashboard.url}events?run=a`), deaf(dashboard.url)];
  await later(300);
  const closing = await Promise.race([dashboard.close().then(() => "closed"), later(5000, "late")]);
  t.is(closing, "closed");
  await stream.ended;
  silent.destroy();
  await t.throwsAsync(ask(dashboard.url), { code: "ECONNREFUSED" });
});

test("the last events are sent before the server closes, with a limit of a second for a viewer that never reads", async (t) => {
  const home = temporary();
  const file = writeRun(join(home, "a"), [started(2), stepped(1, 2)]);
  const dashboard = await served(t, openFolderSource(home));
  await ask(`${dashboard.url}runs`);
  let seen = (): void => {};
  const first = new Promise<void>((resolve) => (seen = resolve));
  const watching = watch(`${dashboard.url}events?run=a`, (messages) => {
    seen();
    return stepsOf(messages).includes(2);
  });
  await first;
  appendFileSync(file, formatEvent(stepped(2, 2), NOON));
  await dashboard.waitForPages();
  await dashboard.close();
  t.deepEqual(stepsOf(await watching), [1, 2]);

  writeRun(join(home, "a"), [started(9e4), ...upTo(50_000).map((n) => stepped(n, 9e4))]);
  const source = openFolderSource(home);
  let opens = (): void => {};
  const open = new Promise<void>((resolve) => (opens = resolve));
  // Called when a viewer's stream starts to follow the run.
  const fileOf = (name: string): string | undefined => (opens(), source.file(name));
  const other = await served(t, { ...source, file: fileOf });
  await ask(`${other.url}runs`);
  const silent = deaf(other.url);
  await open;
  const began = performance.now();
  t.is(await Promise.race([other.waitForPages().then(() => "over"), later(10_000, "late")]), "over");
  t.true(performance.now() - began > 500);
  silent.destroy();
});

test("a viewer that never reads gets one message, and is disconnected after a timeout", async (t) => {
  const file = writeRun(join(temporary(), "a"), [started(9e3), ...upTo(5000).map((n) => stepped(n, 9e3))]);
  // Buffers some bytes and is never read.
  const full = new PassThrough({ highWaterMark: 1 });
  const stream = new EventStream(
    full as unknown as ServerResponse,
    [{ name: "a", file: () => file }],
    "",
    1000,
  );
  const sent = stream.send().then(() => "cut off");
  await later(500);
  // One message of more than a megabyte of lines waits, and no more is read.
  const waiting = full.writableLength + full.readableLength;
  t.true(waiting > 0 && waiting < 3 * 2 ** 16, `${waiting} bytes`);
  t.is(await Promise.race([sent, later(10_000, "waited for")]), "cut off");
  t.true(full.destroyed);
});

test("a name or a path leads to the runs of the folder, and nowhere else", async (t) => {
  const home = temporary();
  const secret = writeRun(join(home, "outside"), [started(2), stepped(1, 2, { secret: "of another" })]);
  writeRun(join(home, "runs", "a"), [started(2), stepped(1, 2)]);
  const { url } = await served(t, openFolderSource(join(home, "runs")));
  await ask(`${url}runs`);
  for (const name of ["../outside", "a/../../outside", join(home, "outside"), secret, "", "__proto__"]) {
    const watching = watch(`${url}events?run=${encodeURIComponent(name)}&run=a`, () => true);
    t.deepEqual(
      (await watching).map(({ run }) => run),
      ["a"],
      name,
    );
  }
  const { host, port, pathname } = new URL(url);
  for (const path of [
    "../../package.json",
    "..%2f..%2fpackage.json",
    "%2e%2e/page.js",
    "page.js/..",
    "//page.js",
  ]) {
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect({ host: "127.0.0.1", port: Number(port) });
      let text = "";
      socket.on("data", (part) => (text += part.toString("latin1"))).on("error", reject);
      socket.on("close", () => resolve(text));
      socket.write(`GET ${pathname}${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    });
    t.regex(answer, /^HTTP\/1\.1 404 /, path);
  }
});

if (process.platform !== "win32") {
  test("a run may have any name", async (t) => {
    const home = temporary();
    const names = ['q"uote', "new\nline", "</script><b>", "ü & %2f + #", "data: x"];
    for (const [i, name] of names.entries())
      writeRun(join(home, name), [started(2), stepped(1, 2)], { lineage: `0123456789a${i}` });
    const { url } = await served(t, openFolderSource(home));
    const { runs } = JSON.parse((await ask(`${url}runs`)).text) as { runs: { name: string }[] };
    t.deepEqual(runs.map(({ name }) => name).toSorted(), names.toSorted());
    const query = new URLSearchParams(names.map((name): [string, string] => ["run", name])).toString();
    const messages = await watch(`${url}events?${query}`, (all) => all.length === names.length);
    t.deepEqual(
      messages.map(({ run }) => run),
      names,
    );
  });
}

test("a line that is too long is skipped, and the lines after it are sent once", async (t) => {
  const home = temporary();
  const file = writeRun(join(home, "a"), [started(3), stepped(1, 3)]);
  appendFileSync(file, `{"type":"warning","at":1,"message":"${"é".repeat(2 ** 20)}"}\n`);
  appendFileSync(file, formatEvent(stepped(2, 3), NOON));
  const { url } = await served(t, openFolderSource(home));
  await ask(`${url}runs`);
  const watching = watch(`${url}events?run=a`, (messages) => stepsOf(messages).includes(3));
  await later(600);
  appendFileSync(file, formatEvent(stepped(3, 3), NOON));
  t.deepEqual(stepsOf(await watching), [1, 2, 3]);
  mkdirSync(join(home, "b"));
  writeFileSync(join(home, "b", "events.jsonl"), "");
  t.is((await ask(`${url}runs`)).status, 200);
});
