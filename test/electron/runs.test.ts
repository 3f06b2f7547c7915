/** Runs in other processes and threads: started, watched, stopped, resumed, and lost. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { connect, LowrankError, type Client, type RemoteFinetuneOptions } from "../../src/electron/index.js";
import { finetune, type TrainEvent } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "../train/quick.js";
import { endAll, start, type Host, type Kind, type Utility } from "./hosts.js";

test.after.always(endAll);

const STEPS = 240;
const given = { model: tinyModel(), data: tinyData() };
const KINDS: Kind[] = ["worker", "fork", "utility"];

type Sent = RemoteFinetuneOptions & { model: string };

function options(more: Partial<Sent> = {}): Sent {
  return quick(given, "cpu", { steps: STEPS, saveEvery: 20, ...more }) as Sent;
}

/** Losses by step of an uninterrupted run, and its adapter. */
let straight: Promise<{ losses: Map<number, number>; adapter: Buffer }> | undefined;

function uninterrupted(): NonNullable<typeof straight> {
  return (straight ??= (async () => {
    const run = finetune(options());
    const losses = lossesOf(await collect(run));
    return { losses, adapter: adapterBytes((await run.result).adapter) };
  })());
}

function lossesOf(events: readonly TrainEvent[]): Map<number, number> {
  return new Map(events.flatMap((event) => (event.type === "step" ? [[event.step, event.loss]] : [])));
}

/**
 * Returns a client: for a utility process over a separate port, as for a page; for any other host over its only
 * port.
 */
function clientOf(kind: Kind, host: Host): Client {
  return connect(kind === "utility" ? (host.port as Utility).page() : host.port);
}

for (const kind of KINDS) {
  test.serial(`started, watched, stopped and resumed, over a ${kind}`, async (t) => {
    t.timeout(120_000);
    const host = start(kind);
    const client = clientOf(kind, host);
    await client.ready;
    const output = join(temporary(), "out");
    const run = client.finetune(options({ output }));
    const events: TrainEvent[] = [];
    for await (const event of run) {
      events.push(event);
      // Messages of other protocols are ignored.
      if (event.type === "start") for (const other of ["text", { kind: "bye" }, null]) host.tell(other);
      if (event.type === "step" && event.step === 3) void run.stop();
    }
    const first = await run.result;
    t.true(first.stopped);
    t.true(first.steps >= 3 && first.steps < STEPS, `stopped at step ${first.steps}`);
    t.is(events.find(({ type }) => type !== "progress")?.type, "start");
    t.is(events.at(-1)?.type, "end");

    const again = client.finetune({ output, resume: true });
    const later = await collect(again);
    const last = await again.result;
    t.false(last.stopped);
    t.is(last.steps, STEPS);
    const { losses, adapter } = await uninterrupted();
    t.deepEqual(new Map([...lossesOf(events), ...lossesOf(later)]), losses);
    t.true(adapterBytes(last.adapter).equals(adapter));
    client.close();
  });
}

for (const kind of KINDS) {
  test.serial(`paused and resumed over a ${kind}, in the background by default`, async (t) => {
    t.timeout(120_000);
    const host = start(kind);
    const client = clientOf(kind, host);
    await client.ready;
    // Once before the run has begun, and once while it trains.
    const run = client.finetune(options());
    await run.pause();
    const events: TrainEvent[] = [];
    const reading = (async () => {
      for await (const event of run) {
        events.push(event);
        if (event.type === "step" && event.step === 3) await run.pause();
      }
    })();
    const paused = async (times: number): Promise<void> => {
      while (events.filter(({ type }) => type === "paused").length < times)
        await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await paused(1);
    t.false(events.some(({ type }) => type === "step"));
    t.like(
      events.find(({ type }) => type === "start"),
      { priority: "background" },
    );
    await run.resume();
    await paused(2);
    const told = events.length;
    await new Promise((resolve) => setTimeout(resolve, 200));
    t.is(events.length, told, "a paused run sends no events");
    // A pause that ends before it was confirmed, and another one.
    const first = run.pause();
    await run.resume();
    await first;
    await run.pause();
    // Events arrive at the reader's pace.
    while (events.at(-1)?.type !== "paused") await new Promise((resolve) => setTimeout(resolve, 5));
    await run.resume();
    await reading;
    const { adapter } = await uninterrupted();
    t.true(adapterBytes((await run.result).adapter).equals(adapter));
    await run.pause();
    client.close();
  });
}

test.serial("a paused run is stopped over a port, and also when its client disconnects", async (t) => {
  const host = start("worker");
  const client = clientOf("worker", host);
  const [one, other] = [join(temporary(), "out"), join(temporary(), "out")];
  const run = client.finetune(options({ output: one, priority: "normal" }));
  await run.pause();
  const { stopped } = await run.stop();
  t.true(stopped);
  const left = client.finetune(options({ output: other }));
  for await (const event of left) {
    if (event.type === "start") t.is(event.priority, "background");
    if (event.type === "step" && event.step === 3) void left.pause();
    if (event.type === "paused") break;
  }
  client.close();
  await left.pause();
  await t.throwsAsync(left.result, { code: "ERR_DISCONNECTED" });
  while (existsSync(join(other, "run.lock"))) await new Promise((resolve) => setTimeout(resolve, 20));
  t.true(readdirSync(other).some((name) => name.startsWith("checkpoint-")));
});

const CRASHES: [name: string, kind: Kind, crash: (host: Host) => void, says: RegExp][] = [
  ["a forked process that is killed", "fork", (host) => host.kill("SIGKILL"), /ended \(signal SIGKILL\)/],
  [
    "a forked process that aborts",
    "fork",
    (host) => host.tell({ task: "abort" }),
    /ended \(signal SIGABRT\)/,
  ],
  [
    "a utility process that is killed, to its page",
    "utility",
    (host) => host.kill("SIGKILL"),
    /the port was closed/,
  ],
  ["a worker that is terminated", "worker", (host) => host.kill(), /the worker ended \(exit code 1\)/],
  [
    "a worker that throws",
    "worker",
    (host) => host.tell({ task: "throw" }),
    /the worker ended \(on purpose\)/,
  ],
];

for (const [name, kind, crash, says] of CRASHES) {
  test.serial(
    `${name} is lost with an error that says how to resume, and nothing before its last checkpoint is lost`,
    async (t) => {
      t.timeout(120_000);
      const host = start(kind);
      const client = clientOf(kind, host);
      const output = join(temporary(), "out");
      const run = client.finetune(options({ output }));
      let seen = 0;
      const failure = await t.throwsAsync(
        async () => {
          for await (const event of run) {
            if (event.type === "checkpoint" && event.step >= 40 && seen === 0) {
              seen = event.step;
              crash(host);
            }
          }
        },
        { instanceOf: LowrankError, code: "ERR_DISCONNECTED" },
      );
      const message = failure?.message ?? "";
      t.regex(message, says);
      t.is(await t.throwsAsync(run.result), failure);
      const [, path, step] = /resume: true, .* (\S+checkpoint-\d+) \(step (\d+)\)$/.exec(message) ?? [];
      t.true(Number(step) >= seen && existsSync(path as string), message);
      t.is(
        await t.throwsAsync(client.finetune(options()).result).then((error) => (error as LowrankError).code),
        "ERR_DISCONNECTED",
      );
      await t.throwsAsync(client.devices(), { code: "ERR_DISCONNECTED" });
      await host.ended;

      const other = connect(start(kind).port);
      const resumed = other.finetune({ output, resume: true });
      const events = await collect(resumed);
      const began = events.find((event) => event.type === "start");
      t.true(began?.type === "start" && began.resumedFrom >= Number(step));
      const { losses, adapter } = await uninterrupted();
      for (const [at, loss] of lossesOf(events)) t.is(losses.get(at), loss, `step ${at}`);
      t.true(adapterBytes((await resumed.result).adapter).equals(adapter));
      other.close();
    },
  );
}

test.serial("a closed client leaves a checkpoint, and another client resumes from it at once", async (t) => {
  t.timeout(120_000);
  const { port } = start("utility") as { port: Utility } & Host;
  const [first, second] = [connect(port.page()), connect(port.page())];
  const output = join(temporary(), "out");
  const run = first.finetune(options({ output, saveEvery: 100_000, steps: 100_000 }));
  for await (const event of run) if (event.type === "step" && event.step === 5) break;
  // Like a reloaded window: its port closes, and it connects over another one.
  first.close();
  const gone = await t.throwsAsync(run.result, { code: "ERR_DISCONNECTED" });
  t.regex(gone?.message ?? "", /^the client was closed during a run; it reported no checkpoint/);
  const again = second.finetune({ output, resume: true, steps: 100_000 });
  for await (const event of again) {
    if (event.type !== "start") continue;
    t.true(event.resumedFrom >= 5);
    break;
  }
  t.true((await again.stop()).stopped);
  t.true(existsSync(join(output, "adapter_model.safetensors")));
});

test.serial(
  'with onDisconnect "continue" the runs of a disconnected client train to their end',
  async (t) => {
    t.timeout(120_000);
    const host = start("fork", { env: { LOWRANK_ON_DISCONNECT: "continue" } });
    const client = connect(host.port);
    const output = join(temporary(), "out");
    const run = client.finetune(options({ output }));
    for await (const event of run) if (event.type === "step") break;
    client.close();
    const adapter = join(output, "adapter_model.safetensors");
    while (existsSync(join(output, "run.lock"))) await new Promise((resolve) => setTimeout(resolve, 20));
    t.true(readFileSync(adapter).equals((await uninterrupted()).adapter));
  },
);

test.serial(
  "several runs train at once, of several clients over one port and over separate ports",
  async (t) => {
    t.timeout(120_000);
    const { port } = start("utility") as { port: Utility } & Host;
    const clients = [connect(port), connect(port), connect(port.page())];
    const runs = clients.flatMap((client) =>
      [temporary(), temporary()].map((output) => ({
        output,
        run: client.finetune(options({ output, overwrite: true })),
      })),
    );
    const all = await Promise.all(
      runs.map(async ({ output, run }) => ({ output, events: await collect(run), result: await run.result })),
    );
    const { losses, adapter } = await uninterrupted();
    for (const { output, events, result } of all) {
      t.is(result.adapter, output);
      t.is(events.filter(({ type }) => type === "step").length, STEPS);
      t.deepEqual(lossesOf(events), losses);
      t.true(adapterBytes(result.adapter).equals(adapter));
    }
  },
);

test.serial("a server that closes stops its runs with a checkpoint and says so", async (t) => {
  t.timeout(120_000);
  const host = start("fork");
  const client = connect(host.port);
  const run = client.finetune(options({ steps: 100_000 }));
  for await (const event of run) if (event.type === "step") break;
  host.tell({ task: "close" });
  t.true((await run.result).stopped);
  await t.throwsAsync(
    async () => {
      for (;;) await client.devices();
    },
    { code: "ERR_DISCONNECTED", message: "the other end has stopped serving" },
  );
});
