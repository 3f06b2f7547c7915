/** One run at a time in a folder, and no lock that outlives its process. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

import test, { type ExecutionContext } from "ava";

import { LOCK, OutputLock } from "../../../src/train/output/lock.js";
import { identifyProcess, type ProcessIdentity } from "../../../src/runs/process-identity.js";
import { temporary } from "../../hashed.js";

const SOURCE = fileURLToPath(new URL("../../../src/train/output/lock.ts", import.meta.url));

function leave(folder: string, holder: Partial<ProcessIdentity>): void {
  const whole = { ...identifyProcess(), token: "somebody's", ...holder };
  writeFileSync(join(folder, LOCK), `${JSON.stringify(whole)}\n`);
}

/** Returns the id of a process that has ended, which no process has by now. */
function ended(): number {
  return spawnSync(process.execPath, ["-e", ""]).pid;
}

test("a second run is refused until the process of the first run releases the lock", async (t) => {
  const folder = temporary();
  const lock = await OutputLock.take(folder);
  const failure = await t.throwsAsync(OutputLock.take(folder), { code: "ERR_OUTPUT_EXISTS" });
  t.true(failure?.message.includes(`another run, process ${process.pid}, writes here`), failure?.message);
  t.true(await lock.isHeld());
  await lock.release();
  t.deepEqual(readdirSync(folder), []);
  await (await OutputLock.take(folder)).release();
});

test("a lock is taken over if its process has ended or its process id was reused", async (t) => {
  const folder = temporary();
  const others: Partial<ProcessIdentity>[] = [
    { pid: ended() },
    { started: process.platform === "linux" ? "another boot/1" : "1000" },
  ];
  for (const other of others) {
    leave(folder, other);
    const lock = await OutputLock.take(folder);
    t.true(await lock.isHeld());
    await lock.release();
    t.deepEqual(readdirSync(folder), []);
  }
});

test("a lock stays if its process may still run: another host, or an unreadable lock", async (t) => {
  const folder = temporary();
  leave(folder, { host: `not-${hostname()}` });
  const far = await t.throwsAsync(OutputLock.take(folder), { code: "ERR_OUTPUT_EXISTS" });
  t.regex(far?.message ?? "", /on not-.*if it has ended, remove .*run\.lock/);
  writeFileSync(join(folder, LOCK), "mine");
  const own = await t.throwsAsync(OutputLock.take(folder), { code: "ERR_OUTPUT_EXISTS" });
  t.regex(own?.message ?? "", /is not a run's lock; move it away/);
  t.is(readFileSync(join(folder, LOCK), "utf8"), "mine");
});

test("an unreadable path is refused without waiting", async (t) => {
  for (const [make, code] of [
    [(file: string) => mkdirSync(file), "EISDIR"],
    [(file: string) => symlinkSync(`${file}-nowhere`, file), "ENOENT"],
  ] as const) {
    const folder = temporary();
    make(join(folder, LOCK));
    const failure = await t.throwsAsync(OutputLock.take(folder), { code: "ERR_OUTPUT_EXISTS" });
    t.regex(failure?.message ?? "", new RegExp(`run\\.lock: cannot be read \\(${code}\\), .*move it away`));
    t.deepEqual(readdirSync(folder), [LOCK]);
  }
});

test("of many processes that find a stale lock at once, one acquires it", async (t) => {
  for (let round = 0; round < 8; round++) {
    const folder = temporary();
    leave(folder, { pid: ended() });
    const taken = await Promise.allSettled(Array.from({ length: 12 }, () => OutputLock.take(folder)));
    const locks = taken.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const held = await Promise.all(locks.map((lock) => lock.isHeld()));
    t.is(held.filter(Boolean).length, 1);
    await Promise.all(locks.map((lock) => lock.release()));
    t.deepEqual(readdirSync(folder), []);
  }
});

test("a process releases its lock on exit, and a killed one is known to be dead", async (t) => {
  const folder = temporary();
  const script = (end: string): string =>
    `const { OutputLock } = await import(${JSON.stringify(SOURCE)}); await OutputLock.take(${JSON.stringify(folder)}); ${end}`;
  const run = (end: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const args = ["--import=tsx", "--input-type=module", "-e", script(end)];
      const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      child.stdout.on("data", () => child.kill("SIGKILL"));
      child.on("error", reject).on("close", () => resolve());
    });
  await run("process.exit(3)");
  t.deepEqual(readdirSync(folder), []);
  await run("console.log('taken'); setInterval(() => {}, 1000)");
  t.true(existsSync(join(folder, LOCK)));
  await (await OutputLock.take(folder)).release();
  t.deepEqual(readdirSync(folder), []);
});

/** Starts a worker that holds the lock of a folder. */
async function holding(t: ExecutionContext, folder: string, busy: boolean): Promise<Worker> {
  const worker = new Worker(new URL("lock-worker.mjs", import.meta.url), { workerData: { folder, busy } });
  t.teardown(() => worker.terminate());
  await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
  return worker;
}

test("a busy worker keeps its lock, and a terminated one does not", async (t) => {
  const folder = temporary();
  const worker = await holding(t, folder, true);
  const failure = await t.throwsAsync(OutputLock.take(folder), { code: "ERR_OUTPUT_EXISTS" });
  t.true(failure?.message.includes(`another run, process ${process.pid}, writes here`), failure?.message);
  await worker.terminate();
  t.true(existsSync(join(folder, LOCK)));
  await (await OutputLock.take(folder)).release();
  t.deepEqual(readdirSync(folder), []);
});

test("a worker with another copy of the package is asked whether it holds the lock", async (t) => {
  const folder = temporary();
  const worker = await holding(t, folder, false);
  const file = join(folder, LOCK);
  const { copy, ...rest } = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  t.is(typeof copy, "string");
  writeFileSync(file, `${JSON.stringify({ ...rest, copy: "another" })}\n`);
  await t.throwsAsync(OutputLock.take(folder), { code: "ERR_OUTPUT_EXISTS" });
  await worker.terminate();
  await (await OutputLock.take(folder)).release();
  t.deepEqual(readdirSync(folder), []);
});
