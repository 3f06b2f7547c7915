/** The messages of both ends of a port, over channels within this process, and over channels that they refuse. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MessageChannel, type MessagePort } from "node:worker_threads";

import test, { type ExecutionContext } from "ava";

import {
  connect,
  LowrankError,
  serve,
  type Client,
  type Port,
  type RemoteFinetuneOptions,
} from "../../src/electron/index.js";
import { PROTOCOL } from "../../src/electron/protocol.js";
import { devices, finetune, LowrankError as LibraryError, type Run } from "../../src/index.js";
import type { FinetuneResult } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { collect, quick } from "../train/quick.js";
import { endAll, start } from "./hosts.js";

test.after.always(endAll);

const given = { model: tinyModel(), data: tinyData() };
const options = (more: RemoteFinetuneOptions = {}): RemoteFinetuneOptions =>
  quick(given, "cpu", more) as RemoteFinetuneOptions;

/** Returns a server and its client in this process, and the messages that passed the port. */
function pair(t: ExecutionContext): { client: Client; port: MessagePort; said: Record<string, unknown>[] } {
  const { port1, port2 } = new MessageChannel();
  serve(port1);
  const said: Record<string, unknown>[] = [];
  port1.on("message", (message: Record<string, unknown>) => said.push(message));
  port2.on("message", (message: Record<string, unknown>) => said.push(message));
  const client = connect(port2);
  t.teardown(() => client.close());
  return { client, port: port2, said };
}

/** Returns a port to a server, for messages without a client. */
function raw(t: ExecutionContext): MessagePort {
  const { port1, port2 } = new MessageChannel();
  serve(port1);
  t.teardown(() => port2.close());
  return port2;
}

test("a remote run has the type of a local one", (t) => {
  const { client } = pair(t);
  const run: Pick<Run<FinetuneResult>, keyof Run<FinetuneResult>> = client.finetune(options());
  t.truthy(run);
});

test("devices are the server's", async (t) => {
  const { client } = pair(t);
  t.deepEqual(await client.devices(), devices());
});

test("errors keep their class, code and message", async (t) => {
  const { client } = pair(t);
  for (const wrong of [{ steps: -1 }, { model: join(temporary(), "none") }, { sched: "linear" }]) {
    const here = await t.throwsAsync(finetune({ ...options(), ...wrong } as never).result);
    const run = client.finetune({ ...options(), ...wrong });
    const there = await t.throwsAsync(run.result, { instanceOf: LibraryError });
    t.is((there as LowrankError).code, (here as LowrankError).code);
    t.is(there?.message, here?.message);
    t.is(await t.throwsAsync(collect(run)), there);
  }
});

test("an abort rejects with the signal's own reason, and releases the folder", async (t) => {
  const { client } = pair(t);
  const output = join(temporary(), "out");
  const reason = { mine: true };
  const controller = new AbortController();
  const run = client.finetune(options({ output, steps: 100_000, signal: controller.signal }));
  let caught: unknown;
  try {
    for await (const event of run) if (event.type === "step" && event.step >= 3) controller.abort(reason);
  } catch (error) {
    caught = error;
  }
  t.is(caught, reason);
  t.is(await run.result.catch((error: unknown) => error), reason);
  t.false(existsSync(join(output, "run.lock")));
  const late = client.finetune(options({ signal: controller.signal }));
  t.is(await late.result.catch((error: unknown) => error), reason);
});

const UNSENDABLE: [given: unknown, message: RegExp][] = [
  [{ model: new Date() }, /^finetune: model must be the path of a folder.*, got a Date$/],
  [
    { lora: { evaData: [new Float32Array(1)] } },
    /^finetune: lora\.evaData\[0\] must be a value that can be sent to another process, got a Float32Array$/,
  ],
  [{ lora: { targetModules: () => true } }, /^finetune: lora\.targetModules must be .*, got a function$/],
  [{ optimizer: { lr: Symbol("x") } }, /^finetune: optimizer\.lr must be .*Symbol\(x\)/],
  [{ signal: {} }, /^finetune: signal must be an AbortSignal, got an object$/],
  ["options", /^finetune: the argument must be an object of options, got "options"$/],
];

test("runs are found with their state, and resume from their checkpoint", async (t) => {
  const { client } = pair(t);
  const folder = temporary();
  await t.throwsAsync(client.findRuns(join(folder, "none")), { code: "ERR_FILE_NOT_FOUND" });
  t.throws(() => client.findRuns(3 as never), { code: "ERR_OPTION" });
  t.deepEqual(await client.findRuns(folder), { runs: [], notices: [] });

  const output = join(folder, "a run");
  const run = client.finetune(options({ output, steps: 40, saveEvery: 2 }));
  for await (const event of run) if (event.type === "checkpoint") break;
  t.is((await client.findRuns(folder)).runs[0]?.state, "running");
  const { steps } = await run.stop();
  // The events file of a killed process ends with a checkpoint.
  const file = join(output, "events.jsonl");
  const lines = readFileSync(file, "utf8").split("\n");
  const end = lines.findIndex((line) => line.includes('"type":"end"'));
  t.true(end > 0);
  t.like((await client.findRuns(folder)).runs[0], { folder: output, state: "stopped", checkpoint: steps });
  writeFileSync(file, `${lines.slice(0, end).join("\n")}\n`);
  const { runs } = await client.findRuns(folder);
  t.is(runs.length, 1);
  t.like(runs[0], { name: "a run", folder: output, state: "interrupted", checkpoint: steps });
  const resumed = client.finetune({ output: runs[0]?.folder, resume: true });
  for await (const event of resumed) {
    if (event.type !== "step") continue;
    t.is(event.step, steps + 1);
    break;
  }
  await resumed.stop();
});

test("options that cannot be sent are refused by name, before anything is sent", async (t) => {
  const { client, said } = pair(t);
  await client.ready;
  for (const [wrong, message] of UNSENDABLE)
    t.throws(() => client.finetune(wrong as RemoteFinetuneOptions), { code: "ERR_OPTION", message });
  const around: Record<string, unknown> = {};
  around["lora"] = around;
  t.throws(() => client.finetune(around), {
    code: "ERR_OPTION",
    message: /^finetune: lora\.lora must be free of cycles/,
  });
  await client.devices();
  t.deepEqual(
    said.map(({ kind }) => kind),
    ["hello", "hello", "devices", "answer"],
  );
});

test("an object that is not a port is refused", (t) => {
  for (const wrong of [undefined, null, 3, {}, { postMessage() {} }])
    for (const open of [serve, connect])
      t.throws(() => open(wrong as Port), {
        code: "ERR_OPTION",
        message: /takes a port: .*process\.parentPort/,
      });
  const { port1 } = new MessageChannel();
  t.throws(() => serve(port1, { onDisconnect: "wait" as never }), {
    code: "ERR_OPTION",
    message: /one of stop, continue/,
  });
  t.throws(() => connect(port1, { timeout: 0 }), {
    code: "ERR_OPTION",
    message: /timeout must be a number of milliseconds/,
  });
  port1.close();
});

test("both ends refuse an end of another version, with an error that says so", async (t) => {
  const { port1, port2 } = new MessageChannel();
  // A server of a later version.
  t.teardown(() => port1.close());
  port1.on("message", (message: { client: string; kind: string }) => {
    if (message.kind !== "hello") t.fail(`${message.kind} was sent`);
    port1.postMessage({ lowrank: 99, to: "client", client: message.client, kind: "hello", more: true });
  });
  const client = connect(port2);
  const run = client.finetune(options());
  const expected = {
    code: "ERR_PROTOCOL",
    message: /the other end speaks protocol 99, and this end 2;/,
  } as const;
  await t.throwsAsync(client.ready, expected);
  await t.throwsAsync(run.result, expected);
  await t.throwsAsync(collect(run), expected);
  await t.throwsAsync(client.devices(), expected);
  // A client of a later version is greeted, so that it can detect the version, and gets nothing else.
  const other = raw(t);
  const said: { lowrank: number; kind: string; call?: number }[] = [];
  other.on("message", (message: { lowrank: number; kind: string }) => said.push(message));
  for (const kind of ["hello", "devices"])
    other.postMessage({ lowrank: 99, to: "server", client: "later", kind, call: 1 });
  for (const kind of ["hello", "devices"])
    other.postMessage({ lowrank: PROTOCOL, to: "server", client: "now", kind, call: 2 });
  while (!said.some(({ kind }) => kind === "answer")) await once(other, "message");
  // A late answer to the later version would arrive before the answer to another call.
  other.postMessage({ lowrank: PROTOCOL, to: "server", client: "now", kind: "devices", call: 3 });
  while (!said.some(({ call }) => call === 3)) await once(other, "message");
  t.deepEqual(
    said.map(({ lowrank, kind, call }) => [lowrank, kind, call]),
    [
      [PROTOCOL, "hello", undefined],
      [PROTOCOL, "hello", undefined],
      [PROTOCOL, "answer", 2],
      [PROTOCOL, "answer", 3],
    ],
  );
});

test("a channel of JSON is refused, with what to do", async (t) => {
  const { port } = start("fork", { serialization: "json" });
  await t.throwsAsync(connect(port).ready, {
    code: "ERR_PROTOCOL",
    message: /fork the process with \{ serialization: "advanced" \}/,
  });
});

test("an error reports that nothing serves, or that the process has ended", async (t) => {
  const { port1, port2 } = new MessageChannel();
  const client = connect(port1, { timeout: 50 });
  await t.throwsAsync(client.finetune(options()).result, {
    code: "ERR_DISCONNECTED",
    message: /^the other end did not respond within 50 ms; is serve\(port\) called there\?/,
  });
  port2.close();
  const program = join(temporary(), "ends.mjs");
  writeFileSync(program, "process.exit(3);");
  const child = fork(program, [], { execArgv: [], serialization: "advanced" });
  await once(child, "exit");
  await t.throwsAsync(connect(child).devices(), {
    code: "ERR_DISCONNECTED",
    message: /ended \(exit code 3\)/,
  });
});

test("an unread run is merged at the server, and the traffic through the port is bounded", async (t) => {
  t.timeout(60_000);
  const { client, said } = pair(t);
  const steps = 1500;
  const run = client.finetune(
    options({ steps, batchSize: 1, gradientAccumulation: 1, saveEvery: 300, maxLength: 8 }),
  );
  t.is((await run.result).steps, steps);
  const events = said.filter(({ kind }) => kind === "event").length;
  t.is(events, 64);
  t.is(said.filter(({ kind }) => kind === "saved").length, 5);
  const read = await collect(run);
  t.true(read.length <= 64 + 1024 + 1, `${read.length} events`);
  const merged = read.reduce((sum, event) => sum + (event.type === "step" ? event.merged : 0), 0);
  t.is(merged, steps);
  t.is(read.at(-1)?.type, "end");
});

test("a client that grants no credit gets no event, one checkpoint, and the result", async (t) => {
  const port = raw(t);
  const said: string[] = [];
  port.on("message", ({ kind }: { kind: string }) => said.push(kind));
  const say = (message: object): void =>
    port.postMessage({ lowrank: PROTOCOL, to: "server", client: "deaf", ...message });
  say({ kind: "hello" });
  say({ kind: "start", run: 1, credit: 0, options: options({ saveEvery: 2 }) });
  while (!said.includes("result")) await once(port, "message");
  t.deepEqual(said, ["hello", "saved", "result"]);
});
