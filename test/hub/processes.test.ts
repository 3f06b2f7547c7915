/** Several processes with one cache: simultaneous, after a killed process, and with the files of a dead one. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";

import test from "ava";

import { temporary } from "../hashed.js";
import { programPath } from "../programs.js";
import { environment, fetched, hubWith, tinyRepo, tree } from "./models.js";
import { after, sha256, type Hub } from "./server.js";

const CHILD = programPath("test/hub/fetching-process");

/** Downloads `owner/tiny` in another process. */
function start(hub: Hub, home: string): { child: ChildProcess; ended: Promise<string> } {
  const child = spawn(process.execPath, [CHILD, "owner/tiny"], {
    env: { ...process.env, ...environment(hub, home), NODE_OPTIONS: "" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  return { child, ended: new Promise((ended) => child.on("close", () => ended(output))) };
}

const repo = tinyRepo();
const weights = repo.files["model.safetensors"] as Buffer;
const locks = (home: string): string => join(home, "hub", ".locks", "models--owner--tiny");

test("of two processes that download the same at once both get all files, which are sent once", async (t) => {
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  const [one, two] = await Promise.all([start(hub, home).ended, start(hub, home).ended]);
  t.is(one, two);
  t.deepEqual(readFileSync(join(one, "model.safetensors")), weights);
  t.is(hub.sentOf(weights), weights.length);
  t.deepEqual(tree(locks(home)), []);
});

test("after a killed process the next one continues at once from the bytes that it left", async (t) => {
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  hub.faults.push(after(hub, weights, 20_000, "hold"));
  const { child, ended } = start(hub, home);
  const blobs = join(home, "hub", "models--owner--tiny", "blobs");
  const came = (): number =>
    existsSync(blobs)
      ? Math.max(
          0,
          ...tree(blobs).map((name) => (name.includes("incomplete") ? sizeOf(join(blobs, name)) : 0)),
        )
      : 0;
  while (came() < 20_000) await later(10);
  child.kill("SIGKILL");
  await ended;
  t.is(tree(locks(home)).length, 1);
  const began = performance.now();
  const { folder } = await fetched(hub, home, "owner/tiny");
  t.true(performance.now() - began < 5000);
  t.deepEqual(readFileSync(join(folder, "model.safetensors")), weights);
  t.is(hub.sentOf(weights), weights.length);
  t.deepEqual(tree(locks(home)), []);
  t.deepEqual(
    tree(blobs).filter((name) => name.includes("incomplete")),
    [],
  );
});

const sizeOf = (path: string): number => {
  try {
    return readFileSync(path).length;
  } catch {
    return 0;
  }
};

/** Waits until the hub was asked for the list of files, before any of them is locked. */
async function asked(hub: Hub, requests: number): Promise<void> {
  while (hub.requests.length < requests) await later(10);
}

test("a lock of another machine is respected as long as it is renewed", async (t) => {
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  mkdirSync(locks(home), { recursive: true });
  const lock = join(locks(home), `${sha256(weights)}.lowrank`);
  writeFileSync(lock, JSON.stringify({ host: `not-${hostname()}`, pid: process.pid, token: "1" }));
  let done = false;
  const fetching = fetched(hub, home, "owner/tiny").then(() => (done = true));
  await asked(hub, 1);
  await later(700);
  t.false(done);
  t.is(hub.sentOf(weights), 0);
  const minute = new Date(Date.now() - 60_000);
  utimesSync(lock, minute, minute);
  await fetching;
  t.is(hub.sentOf(weights), weights.length);
  t.deepEqual(tree(locks(home)), []);

  const waiting = new AbortController();
  writeFileSync(lock, "no lock of ours, just written");
  const reason = new Error("enough");
  const elsewhere = join(home, "hub", "models--owner--tiny", "blobs", sha256(weights));
  const other = temporary();
  mkdirSync(locks(other), { recursive: true });
  writeFileSync(join(locks(other), `${sha256(weights)}.lowrank`), readFileSync(lock));
  const before = hub.requests.length;
  const held = fetched(hub, other, "owner/tiny", { signal: waiting.signal });
  await asked(hub, before + 1);
  await later(300);
  waiting.abort(reason);
  t.is(await t.throwsAsync(held), reason);
  t.true(existsSync(elsewhere));
});
