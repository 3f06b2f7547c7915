/** Resuming a run: from the right checkpoint, with its recorded options, on the same model and data. */
import { copyFileSync, cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions, type TrainEvent } from "../../src/index.js";
import { parseSealed, sealJson } from "../../src/train/output/manifest.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2 }, ...more }) as FinetuneOptions & { output: string };

const started = (events: TrainEvent[]): number =>
  events.flatMap((event) => (event.type === "start" ? [event.resumedFrom] : []))[0] ?? NaN;
const warnings = (events: TrainEvent[]): string[] =>
  events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
const checkpoints = (output: string): string[] =>
  readdirSync(output).filter((name) => name.startsWith("checkpoint-"));

/** Runs until a step is reported, and stops. */
async function stopped(given: FinetuneOptions, step: number): Promise<void> {
  const run = finetune(given);
  for await (const event of run) if (event.type === "step" && event.step === step) void run.stop();
  await run.result;
}

test.serial(
  "resume continues from the newest checkpoint of its lineage, not from the highest number",
  async (t) => {
    const { output, ...rest } = options({ steps: 18, saveEvery: 2, keep: 9 });
    await finetune({ ...rest, output }).result;
    const other = adapterBytes(join(output, "checkpoint-4"));
    // Back to step 2 with another rate, and stopped on the way.
    await stopped({ resume: join(output, "checkpoint-2"), optimizer: { lr: 1e-3 } }, 4);
    const resumed = await collect(finetune({ resume: output }));
    t.true([4, 5, 6].includes(started(resumed)), String(started(resumed)));

    // The result equals a run without the detour.
    const elsewhere = join(temporary(), "out");
    await finetune({ resume: join(output, "checkpoint-2"), output: elsewhere, optimizer: { lr: 1e-3 } })
      .result;
    t.true(adapterBytes(output).equals(adapterBytes(elsewhere)));
    // The checkpoint of the other branch is kept, under another name where both have the same step.
    const kept = checkpoints(output).filter((name) => name.startsWith("checkpoint-4-"));
    t.is(kept.length, 1);
    t.true(adapterBytes(join(output, kept[0] as string)).equals(other));
    t.false(adapterBytes(join(output, "checkpoint-4")).equals(other));
  },
);

test.serial("a branch that was killed before its first save resumes from its origin", async (t) => {
  const given = options({ steps: 8, saveEvery: 2, keep: 9 });
  await finetune(given).result;
  const controller = new AbortController();
  const run = finetune({ resume: join(given.output, "checkpoint-4"), signal: controller.signal });
  const reading = async (): Promise<void> => {
    for await (const event of run) if (event.type === "start") controller.abort(new Error("gone"));
  };
  await t.throwsAsync(reading(), { message: "gone" });
  const events = await collect(finetune({ resume: given.output }));
  t.is(started(events), 4);
});

test.serial(
  "a run keeps its recorded options, and options given on resume that differ are named",
  async (t) => {
    const whole = options({ lora: { r: 3, loraDropout: 0.1 }, seed: 5 });
    await finetune(whole).result;
    const cut = { ...whole, output: join(temporary(), "out") };
    await stopped({ ...cut, saveEvery: 4 }, 5);
    const alone = await collect(finetune({ resume: cut.output }));
    t.deepEqual(warnings(alone), []);
    t.true(adapterBytes(whole.output).equals(adapterBytes(cut.output)));

    const longer = await collect(finetune({ resume: cut.output, steps: 14, optimizer: { lr: 0.02 } }));
    t.deepEqual(warnings(longer), [
      "resume: steps was 12, and is 14 now",
      "resume: optimizer.lr was 0.01, and is 0.02 now",
      "resume: the linear schedule now ends at step 14 instead of 12: from step 13 on the learning rate follows the new length (0.00308 at that step instead of 0.00); completed steps are not affected",
    ]);
    t.like(longer.at(-1), { type: "end", steps: 14 });
    const refused: [Partial<FinetuneOptions>, RegExp][] = [
      [
        { lora: { r: 2 }, seed: 6 },
        /lora\.r was 3, and is 2 now; seed was 5, and is 6 now: .*; leave them out/,
      ],
      [{ batchSize: 1 }, /batchSize was 2, and is 1 now/],
      [{ dtype: "bf16" }, /dtype was not given, and is bf16 now/],
      [{ matmulPrecision: "bf16" }, /matmulPrecision was exact, and is bf16 now/],
      [{ steps: 3 }, /after step \d+, and steps is 3/],
      [{ patience: 1 }, /evalEvery/],
    ];
    for (const [more, message] of refused)
      await t.throwsAsync(finetune({ resume: cut.output, ...more }).result, { code: "ERR_OPTION", message });
  },
);

test.serial("a run whose record has no format of prompts continues with the texts joined", async (t) => {
  const chatTemplate = join(temporary(), "chat.jinja");
  writeFileSync(chatTemplate, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
  const data = [{ prompt: "Who keeps the light?", completion: " Marta." }];
  const given = options({ data, chatTemplate, promptFormat: "raw", steps: 4, saveEvery: 2 });
  await finetune(given).result;
  const record = join(given.output, "run.json");
  const written = parseSealed(readFileSync(record, "utf8")) as { options: FinetuneOptions };
  t.is(written.options.promptFormat, "raw");
  writeFileSync(record, sealJson({ ...written, options: { ...written.options, promptFormat: undefined } }));
  const resumed = await collect(finetune({ resume: given.output, data, steps: 6 }));
  t.is(started(resumed), 4);
  t.notRegex(warnings(resumed).join(), /written by the chat template/);
  await t.throwsAsync(finetune({ resume: given.output, data, steps: 8, promptFormat: "chat" }).result, {
    code: "ERR_OPTION",
    message: /promptFormat was raw, and is chat now/,
  });
});

test.serial("another model, tokenizer or data is refused; the same ones elsewhere are not", async (t) => {
  const given = options({ steps: 4, saveEvery: 2 });
  await finetune(given).result;
  const copied = (change: (folder: string) => void): string => {
    const folder = temporary();
    cpSync(given.model as string, folder, { recursive: true });
    change(folder);
    return folder;
  };
  const same = copied(() => {});
  const data = join(temporary(), "moved.jsonl");
  copyFileSync(given.data as string, data);
  await finetune({ resume: given.output, model: same, data }).result;

  const bytes = readFileSync(join(same, "model.safetensors"));
  bytes[bytes.length - 2] = (bytes[bytes.length - 2] as number) ^ 1;
  const tokenizer = readFileSync(join(same, "tokenizer.json"), "utf8");
  const others: [Partial<FinetuneOptions>, RegExp][] = [
    [
      { model: copied((folder) => writeFileSync(join(folder, "model.safetensors"), bytes)) },
      /the model differs/,
    ],
    [
      { model: copied((folder) => writeFileSync(join(folder, "tokenizer.json"), `${tokenizer} `)) },
      /the tokenizer differs/,
    ],
    [{ data: tinyData(30) }, /the training data differs/],
  ];
  for (const [more, message] of others)
    await t.throwsAsync(finetune({ resume: given.output, ...more }).result, { code: "ERR_OPTION", message });
});

test.serial("a damaged checkpoint names the sound one before it, from which the run resumes", async (t) => {
  const whole = options();
  await finetune(whole).result;
  const files: [string, (bytes: Buffer) => Buffer][] = [
    ["optimizer.safetensors", (bytes) => bytes.subarray(0, bytes.length - 9)],
    [
      "adapter_model.safetensors",
      (bytes) => Buffer.from(bytes.map((byte, i) => (i === 700 ? byte ^ 8 : byte))),
    ],
    ["run.json", (bytes) => Buffer.from(bytes.toString().replace('"draws": ', '"draws": 1'))],
    ["run.json", () => Buffer.alloc(0)],
  ];
  for (const [file, change] of files) {
    const { output } = options();
    await finetune({ ...options({ saveEvery: 4 }), output }).result;
    const damaged = join(output, "checkpoint-12", file);
    writeFileSync(damaged, change(readFileSync(damaged)));
    for (const resume of [output, join(output, "checkpoint-12")]) {
      const failure = await t.throwsAsync(finetune({ resume }).result, { code: "ERR_FILE_FORMAT" });
      const [, sound] = /the last intact one is (\S+); continue/.exec(failure?.message ?? "") ?? [];
      t.is(sound, join(output, "checkpoint-8"), failure?.message);
    }
    await finetune({ resume: join(output, "checkpoint-8") }).result;
    t.true(adapterBytes(whole.output).equals(adapterBytes(output)), file);
  }
});

test.serial("the requested number of checkpoints is kept, and the best one in addition", async (t) => {
  const given = options({
    saveEvery: 1,
    evalEvery: 1,
    evalSplit: 0.2,
    keep: 2,
    steps: 9,
    optimizer: { lr: 0.2 },
  });
  const events = await collect(finetune(given));
  const evals = events.flatMap((event) => (event.type === "eval" && event.step > 0 ? [event] : []));
  const best = evals.reduce((least, one) => (one.loss < least.loss ? one : least));
  const expected = [...new Set([best.step, 8, 9])].map((step) => `checkpoint-${step}`);
  t.deepEqual(checkpoints(given.output).sort(), expected.sort());
  const plain = options({ saveEvery: 1, steps: 5 });
  await finetune(plain).result;
  t.deepEqual(checkpoints(plain.output), ["checkpoint-3", "checkpoint-4", "checkpoint-5"]);
});

test.serial(
  "patience ends a run that does not improve, and keeps the best adapter, resumed or not",
  async (t) => {
    const more = { evalSplit: 0.2, evalEvery: 1, steps: 60, patience: 3, optimizer: { lr: 0.3 }, warmup: 0 };
    const whole = options({ ...more, saveEvery: 2 });
    const run = finetune(whole);
    const events = await collect(run);
    const evals = events.flatMap((event) => (event.type === "eval" && event.step > 0 ? [event] : []));
    const best = evals.reduce((least, one) => (one.loss < least.loss ? one : least));
    const result = await run.result;
    t.deepEqual(result.best, { step: best.step, loss: best.loss, early: true });
    t.is(result.steps, best.step + 3);
    t.false(result.stopped);
    const kept = join(whole.output, `checkpoint-${best.step}`);
    t.true(adapterBytes(whole.output).equals(adapterBytes(kept)));

    const cut = { ...whole, output: join(temporary(), "out") };
    for (const step of [1, 2, best.step + 1]) {
      await stopped(existsSync(cut.output) ? { resume: cut.output } : cut, step);
    }
    const resumed = await finetune({ resume: cut.output }).result;
    t.deepEqual(resumed.best, result.best);
    t.true(adapterBytes(whole.output).equals(adapterBytes(cut.output)));
    // Resuming it again does nothing unless patience is raised.
    t.is((await finetune({ resume: cut.output }).result).steps, resumed.steps);
    t.true((await finetune({ resume: cut.output, patience: 5 }).result).steps > resumed.steps);
  },
);

test.serial("stop() while loading ends the run, and nothing is saved", async (t) => {
  let cut = 0;
  for (const wait of [0, 1, 5, 20]) {
    const given = options();
    const run = finetune(given);
    await new Promise((resolve) => setTimeout(resolve, wait));
    const result = await run.stop();
    if (result.steps > 0) continue;
    cut++;
    t.deepEqual([result.adapter, result.stopped], ["", true]);
    t.false(existsSync(given.output));
  }
  t.true(cut > 0, "all had begun to train");
});

test.serial("options of the wrong type are refused by name, before anything is read", async (t) => {
  const bad: unknown[] = [null, 5, -1, Number.NaN, "", true, [1], { a: 1 }, () => 1, Symbol("s"), 10n];
  const names = ["model", "data", "output", "lora", "optimizer", "keep", "patience", "resume", "signal"];
  for (const name of names)
    for (const value of bad) {
      const options = { ...given, device: "cpu", output: join(temporary(), "none"), [name]: value };
      if ((name === "resume" && value === true) || (name === "keep" && value === 5)) continue;
      const failure: unknown = await finetune(options as FinetuneOptions).result.catch(
        (error: unknown) => error,
      );
      t.is((failure as Error).name, "LowrankError", `${name} ${typeof value}: ${String(failure)}`);
    }
});
