/**
 * events.jsonl next to the adapter: the events of the run, each step once, across stops, kills, branches and other
 * folders.
 */
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import test from "ava";
import { finetune, type FinetuneOptions } from "../../src/index.js";
import { readLines, type RecordedEvent } from "../../src/runs/events-file.js";
import { RunRecorder } from "../../src/train/recorder.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2 }, ...more }) as FinetuneOptions & { output: string };

async function recordedIn(output: string, name = "events.jsonl"): Promise<RecordedEvent[]> {
  const events: RecordedEvent[] = [];
  for await (const { event } of readLines(join(output, name))) events.push(event as RecordedEvent);
  return events;
}

const stepsOf = (events: readonly RecordedEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event["step"] as number] : []));
const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);

async function stopped(given: FinetuneOptions, step: number): Promise<void> {
  const run = finetune(given);
  for await (const event of run) if (event.type === "step" && event.step === step) void run.stop();
  await run.result;
}

test.serial("the recorder writes the same events as the iterator yields, each step separately", async (t) => {
  const held = options({ evalSplit: 0.2, evalEvery: 4, saveEvery: 4 });
  const told = (await collect(finetune(held))).filter(({ type }) => type !== "progress");
  const events = await recordedIn(held.output);
  t.is(events[0]?.type, "events");
  t.deepEqual(
    events.slice(1),
    told.map((event, i) => ({
      ...(JSON.parse(JSON.stringify(event)) as { type: string }),
      at: events[i + 1]?.at as number,
    })),
  );
  t.true(events.every(({ at }, i) => i === 0 || at >= (events[i - 1] as RecordedEvent).at));
  // Nothing read this run's events, and the queue merged none of the recorded ones.
  const unread = options({ steps: 12 });
  await finetune(unread).result;
  t.deepEqual(stepsOf(await recordedIn(unread.output)), upTo(12));
});

test.serial(
  "a run that was stopped and resumed records each step once, and both of its starts",
  async (t) => {
    const given = options();
    await stopped(given, 5);
    const before = stepsOf(await recordedIn(given.output));
    t.true(before.length < 12);
    await finetune({ resume: given.output }).result;
    const events = await recordedIn(given.output);
    t.deepEqual(stepsOf(events), upTo(12));
    t.deepEqual(
      events.flatMap((event) => (event.type === "start" ? [event["resumedFrom"]] : [])),
      [0, before.length],
    );
    t.is(events.filter(({ type }) => type === "end").length, 1);
    t.is(events.at(-1)?.type, "end");
  },
);

test.serial("steps repeated after a kill are recorded once, and an incomplete line is dropped", async (t) => {
  const given = options({ saveEvery: 4, keep: 9 });
  const child = join(temporary(), "child.mts");
  const index = pathToFileURL(fileURLToPath(new URL("../../src/index.ts", import.meta.url))).href;
  writeFileSync(
    child,
    `import { finetune } from ${JSON.stringify(index)};
for await (const event of finetune(${JSON.stringify(given)}))
  if (event.type === "step" && event.step === 7) process.kill(process.pid, "SIGKILL");`,
  );
  const loader = pathToFileURL(
    fileURLToPath(new URL("../../node_modules/tsx/dist/loader.mjs", import.meta.url)),
  );
  const { signal } = spawnSync(process.execPath, [`--import=${loader.href}`, child], { stdio: "ignore" });
  if (process.platform !== "win32") t.is(signal, "SIGKILL");
  const cut = stepsOf(await recordedIn(given.output));
  t.true(cut.length >= 4 && cut.length <= 12, String(cut));
  appendFileSync(join(given.output, "events.jsonl"), '{"type":"step","at":17');
  await finetune({ resume: given.output }).result;
  const events = await recordedIn(given.output);
  t.true(events.every((event) => event !== undefined));
  t.deepEqual(stepsOf(events), upTo(12));
});

test.serial(
  "a branch starts with the steps before it, and the abandoned record is kept and can be resumed",
  async (t) => {
    const given = options({ steps: 8, saveEvery: 2, keep: 9 });
    await finetune(given).result;
    const first = readFileSync(join(given.output, "events.jsonl"), "utf8");
    await stopped({ resume: join(given.output, "checkpoint-4"), optimizer: { lr: 1e-3 } }, 6);
    const left = readdirSync(given.output).filter((name) => /^events-[0-9a-f]{12}\.jsonl$/.test(name));
    t.is(left.length, 1);
    t.is(readFileSync(join(given.output, left[0] as string), "utf8"), first);
    const branch = await recordedIn(given.output);
    t.deepEqual(stepsOf(branch), upTo(stepsOf(branch).length));
    t.is(branch.filter(({ type }) => type === "start").length, 2);
    // Resumes the abandoned lineage.
    await finetune({ resume: join(given.output, "checkpoint-6"), output: given.output }).result;
    t.deepEqual(stepsOf(await recordedIn(given.output)), upTo(8));
  },
);

test.serial("a run that resumes in another folder copies the earlier events", async (t) => {
  const given = options({ saveEvery: 4 });
  await stopped(given, 6);
  const output = join(temporary(), "elsewhere");
  await finetune({ resume: given.output, output }).result;
  t.deepEqual(stepsOf(await recordedIn(output)), upTo(12));
  // The copied folder alone has the same events.
  const copy = join(temporary(), "copy");
  cpSync(output, copy, { recursive: true });
  t.deepEqual(await recordedIn(copy), await recordedIn(output));
});

test.serial("the events of another run stay until this one has saved something", async (t) => {
  const given = options({ steps: 4 });
  await finetune(given).result;
  const before = readFileSync(join(given.output, "events.jsonl"), "utf8");
  const controller = new AbortController();
  const run = finetune({ ...given, steps: 6, overwrite: true, signal: controller.signal });
  const reading = async (): Promise<void> => {
    for await (const event of run) if (event.type === "step") controller.abort(new Error("gone"));
  };
  await t.throwsAsync(reading(), { message: "gone" });
  t.is(readFileSync(join(given.output, "events.jsonl"), "utf8"), before);
  t.deepEqual(
    readdirSync(given.output).filter((name) => name.includes("tmp")),
    [],
  );
  await finetune({ ...given, steps: 6, overwrite: true }).result;
  t.deepEqual(stepsOf(await recordedIn(given.output)), upTo(6));
});

test.serial(
  "a failed run records the reason, and a run aborted before its first save leaves nothing",
  async (t) => {
    const given = options({
      optimizer: { lr: 1e30 },
      clipNorm: 0,
      steps: 40,
      schedule: "constant",
      warmup: 0,
    });
    await t.throwsAsync(finetune(given).result, { code: "ERR_NOT_FINITE" });
    const last = (await recordedIn(given.output)).at(-1);
    t.like(last, { type: "failed", code: "ERR_NOT_FINITE" });
    const aborted = options({ signal: AbortSignal.abort(new Error("gone")) });
    await t.throwsAsync(finetune(aborted).result, { message: "gone" });
    t.false(existsSync(aborted.output));
  },
);

test.serial("a run is refused before it begins if events.jsonl was written by something else", async (t) => {
  const given = options();
  await finetune({ ...given, steps: 2 }).result;
  const file = join(given.output, "events.jsonl");
  renameSync(file, join(dirname(given.output), "aside"));
  writeFileSync(file, "mine\n");
  const refused = await t.throwsAsync(finetune({ ...given, overwrite: true }).result, {
    code: "ERR_OUTPUT_EXISTS",
  });
  t.regex(
    refused?.message ?? "",
    /events\.jsonl: not written by a run: .*; move it away, or choose another folder/,
  );
  t.is(readFileSync(file, "utf8"), "mine\n");
});

test("a record that cannot be written causes one warning", async (t) => {
  const warnings: string[] = [];
  const recorder = new RunRecorder((message) => warnings.push(message));
  const line = [{ lineage: "0123456789ab" }];
  await recorder.begin(join(temporary(), "absent"), {
    line,
    before: undefined,
    staged: false,
    log: undefined,
  });
  for (let n = 0; n < 3; n++) recorder.record({ type: "warning", message: "lost" });
  await recorder.flush();
  await recorder.recordSave();
  await recorder.close({ abandoned: false });
  t.is(warnings.length, 1);
  t.regex(
    warnings[0] as string,
    /events\.jsonl: cannot be written \(ENOENT\); the run continues, but is no longer recorded there/,
  );
});
