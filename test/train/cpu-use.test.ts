/** Threads and priority of the engine: validated, recorded, changed by resume, and without effect on any bit. */
import { readdirSync, readFileSync } from "node:fs";
import { constants, getPriority } from "node:os";
import { join } from "node:path";

import test from "ava";

import {
  cpuUse,
  finetune,
  manualSeed,
  nn,
  optim,
  setCpuUse,
  tensor,
  Trainer,
  withCpuUse,
  type CpuUse,
  type FinetuneOptions,
  type StartEvent,
  type TrainEvent,
} from "../../src/index.js";
import { tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

// More than most machines have: the engine starts the requested number of threads on any machine.
const ALL = 7;
process.env["LOWRANK_THREADS"] = String(ALL);

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 4, loraDropout: 0.1 }, ...more }) as FinetuneOptions & { output: string };

const startOf = (events: readonly TrainEvent[]): StartEvent =>
  events.find((event) => event.type === "start") as StartEvent;

/** Returns the id of each thread of this process with a given name, and its fields in `/proc` from the third on. */
function statsOf(name: string): [number: string, fields: string[]][] {
  return readdirSync("/proc/self/task").flatMap((task) => {
    let stat: string;
    try {
      stat = readFileSync(`/proc/self/task/${task}/stat`, "utf8");
    } catch {
      // The thread has ended since the folder was listed.
      return [];
    }
    const [, its = "", rest = ""] = /^\d+ \((.*)\) (.*)$/s.exec(stat) ?? [];
    return its.startsWith(name) ? [[task, rest.split(" ")] as [string, string[]]] : [];
  });
}

const niceOf = (name: string): number[] => statsOf(name).map(([, fields]) => Number(fields[16]));

test.serial(
  "a background run leaves one core free and lowers the priority of no other threads",
  async (t) => {
    const run = finetune(options({ priority: "background", steps: 400, saveEvery: "never" }));
    const seen: { low: number[]; usual: number[] }[] = [];
    const loads: number[] = [];
    for await (const event of run) {
      if (event.type === "start") t.like(event, { threads: ALL - 1, priority: "background" });
      if (event.type !== "step" || event.step % 20 !== 0) continue;
      if (process.platform === "linux")
        seen.push({ low: niceOf("lowrank-low"), usual: niceOf("lowrank-cpu") });
      // A caller's operation on the same device, at normal priority, between the steps of the run.
      const product = tensor([[1, 2]]).matmul(tensor([[3], [4]]));
      loads.push(await product.item());
      if (event.step === 100) void run.stop();
    }
    await run.result;
    t.true(loads.length >= 5 && loads.every((value) => value === 11));
    t.deepEqual(cpuUse(), { threads: ALL, priority: "normal" });
    t.is(getPriority(), 0, "the process keeps its own");
    if (process.platform !== "linux") return;
    const low = constants.priority.PRIORITY_BELOW_NORMAL;
    for (const { low: lowered, usual } of seen) {
      t.deepEqual(lowered, Array<number>(ALL - 1).fill(low));
      t.deepEqual(usual, Array<number>(ALL - 1).fill(0));
    }
  },
);

test.serial("1, 2, 3 and 7 threads, at either priority, train the same bits", async (t) => {
  const uses: CpuUse[] = [1, 2, 3, ALL].flatMap((threads) => [
    { threads },
    { threads, priority: "background" as const },
  ]);
  const runs: { losses: number[]; adapter: Buffer }[] = [];
  for (const use of uses) {
    // Long enough for products that are split over several threads.
    const one = options({ ...use, maxLength: 256, packing: true, evalSplit: 0.1, evalEvery: 6 });
    const events = await collect(finetune(one));
    t.like(startOf(events), { threads: use.threads as number, priority: use.priority ?? "normal" });
    const losses = events.flatMap((e) => (e.type === "step" || e.type === "eval" ? [e.loss] : []));
    runs.push({ losses, adapter: adapterBytes(one.output) });
  }
  for (const [i, { losses, adapter }] of runs.entries()) {
    t.deepEqual(losses, runs[0]?.losses, JSON.stringify(uses[i]));
    t.true(adapter.equals(runs[0]?.adapter as Buffer), JSON.stringify(uses[i]));
  }
});

/** Returns the processor time, in clock ticks, of each thread with a given name, by thread id. */
function ticksOf(name: string): Map<string, number> {
  const ticks = statsOf(name).map(
    ([number, fields]) => [number, Number(fields[11]) + Number(fields[12])] as const,
  );
  return new Map(ticks);
}

test.serial("no more threads compute than requested", async (t) => {
  if (process.platform !== "linux") return t.pass("only Linux reports the times of threads");
  await finetune(options({ steps: 2 })).result;
  for (const threads of [1, 3]) {
    const before = ticksOf("lowrank-cpu-");
    t.is(before.size, ALL - 1);
    await finetune(options({ threads, steps: 400, saveEvery: "never", maxLength: 256, packing: true }))
      .result;
    const after = ticksOf("lowrank-cpu-");
    const worked = [...after].filter(([number, ticks]) => ticks > (before.get(number) ?? 0) + 1);
    t.true(worked.length <= threads - 1, `${worked.length} workers of ${threads} threads`);
    if (threads > 1) t.true(worked.length > 0);
  }
});

test.serial("an invalid number of threads or priority is one error, before anything is read", async (t) => {
  for (const threads of [0, -1, 1.5, NaN, ALL + 1, "2", true, null]) {
    const refused = finetune(options({ threads: threads as number, model: "/nowhere", data: "/nowhere" }));
    const error = await t.throwsAsync(refused.result, { code: "ERR_OPTION" });
    if (threads !== null)
      t.regex(error?.message ?? "", /^finetune: threads must be a whole number from 1 to 7, /);
    if (threads === null) continue;
    const message = /: threads must be a whole number from 1 to 7, the threads of the cpu, got /;
    t.throws(() => setCpuUse({ threads: threads as number }), { code: "ERR_OPTION", message });
    t.throws(() => withCpuUse({ threads: threads as number }, () => 0), { code: "ERR_OPTION", message });
  }
  const priority = "low" as never;
  await t.throwsAsync(finetune(options({ priority })).result, {
    code: "ERR_OPTION",
    message: 'priority must be one of normal, background, got "low"',
  });
  t.throws(() => setCpuUse({ priority }), { code: "ERR_OPTION" });
  t.throws(() => setCpuUse({ thread: 2 } as never), { message: /did you mean threads/ });
});

test.serial("both are recorded, and changing them on resume changes no bit", async (t) => {
  const whole = options();
  await finetune(whole).result;
  const cut = options({ threads: 2, priority: "background" });
  const run = finetune(cut);
  for await (const event of run) if (event.type === "step" && event.step === 5) void run.stop();
  t.true((await run.result).stopped);
  const recorded = (): { options: CpuUse } =>
    JSON.parse(readFileSync(join(cut.output, "run.json"), "utf8")) as { options: CpuUse };
  t.like(recorded().options, { threads: 2, priority: "background" });
  // The recorded value is the default.
  const again = finetune({ resume: cut.output });
  let start: StartEvent | undefined;
  for await (const event of again) {
    if (event.type === "start") start = event;
    if (event.type === "step" && event.step === 8) void again.stop();
  }
  t.true((await again.result).stopped);
  t.like(start, { threads: 2, priority: "background" });
  const last = await collect(finetune({ resume: cut.output, threads: 5, priority: "normal" }));
  t.like(startOf(last), { threads: 5, priority: "normal" });
  t.like(recorded().options, { threads: 5, priority: "normal" });
  t.true(adapterBytes(cut.output).equals(adapterBytes(whole.output)));
});

test.serial("a run from a machine with more cores resumes with the default", async (t) => {
  const more = options({ threads: ALL });
  const run = finetune(more);
  for await (const event of run) if (event.type === "step" && event.step === 3) void run.stop();
  await run.result;
  // Simulates a machine with two cores.
  process.env["LOWRANK_THREADS"] = "2";
  try {
    const events = await collect(finetune({ resume: more.output }));
    const warned = events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
    t.deepEqual(
      warned.filter((message) => message.includes("threads")),
      ["resume: the run had 7 threads, and the cpu of this machine has 2; it continues with the default"],
    );
    await t.throwsAsync(finetune({ resume: more.output, threads: 7 }).result, { code: "ERR_OPTION" });
  } finally {
    process.env["LOWRANK_THREADS"] = String(ALL);
  }
});

test.serial("withCpuUse applies within its call, and setCpuUse applies elsewhere", async (t) => {
  setCpuUse({ threads: 3 });
  try {
    t.deepEqual(cpuUse(), { threads: 3, priority: "normal" });
    const inner = withCpuUse({ priority: "background" }, async () => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return cpuUse();
    });
    t.deepEqual(cpuUse(), { threads: 3, priority: "normal" });
    t.deepEqual(await inner, { threads: 3, priority: "background" });
  } finally {
    setCpuUse({});
  }
  t.deepEqual(cpuUse(), { threads: ALL, priority: "normal" });
});

test.serial("a Trainer takes both options and gives the same bits", async (t) => {
  const train = async (use: CpuUse): Promise<Float32Array> => {
    manualSeed(3);
    const model = new nn.Linear(96, 96, { device: "cpu" });
    const x = tensor(
      Float32Array.from({ length: 64 * 96 }, (_, i) => Math.sin(i)),
      { shape: [64, 96] },
    );
    const trainer = new Trainer({
      model,
      optimizer: new optim.AdamW(model.parameters(), { lr: 1e-2 }),
      data: [x, x, x, x],
      loss: (own, batch) => own.forward(batch).pow(2).mean(),
      ...use,
    });
    await trainer.result;
    return (await model.weight.data()) as Float32Array;
  };
  const [first, ...others] = await Promise.all(
    [{}, { threads: 1 }, { threads: 3, priority: "background" as const }].map(train),
  );
  for (const other of others) t.deepEqual(other, first);
  await t.throwsAsync(train({ threads: 0 }), {
    code: "ERR_OPTION",
    message: /^Trainer: threads must be a whole/,
  });
});
