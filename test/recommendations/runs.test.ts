/** Recommendations of a run work: after divergence, damage and a lack of memory, and for options that conflict. */
import { readFileSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";

import { estimate, finetune, type FinetuneOptions, type TrainEvent } from "../../src/index.js";
import { tinyData, tinyModel } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { tinyWhisper, tones } from "../tiny-whisper.js";
import { collect, quick } from "../train/quick.js";

type Options = FinetuneOptions & { output: string };
const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): Options =>
  quick(given, "cpu", { lora: { r: 2 }, ...more }) as Options;
const warnings = (events: readonly TrainEvent[]): string[] =>
  events.flatMap((event) => (event.type === "warning" ? [event.message] : []));

/** Runs `work` with `bytes` of free memory. */
async function withFree<T>(bytes: number, work: () => Promise<T>): Promise<T> {
  const real = process.availableMemory;
  process.availableMemory = () => bytes;
  try {
    return await work();
  } finally {
    process.availableMemory = real;
  }
}

/** Runs to the end, and expects no warning. */
async function quiet(t: ExecutionContext, given: FinetuneOptions): Promise<void> {
  const events = await collect(finetune(given));
  t.deepEqual(warnings(events), []);
  t.is(events.at(-1)?.type, "end");
}

test.serial("a run that diverges: a lower learning rate, or a longer warm-up, and overwrite", async (t) => {
  const learned = options({ optimizer: { lr: 0.05 }, steps: 40 });
  await finetune(learned).result;
  const {
    model: _,
    lora: _lora,
    ...rest
  } = options({ steps: 24, schedule: "constant", saveEvery: 16, keep: 1 });
  const diverging = { ...rest, adapter: learned.output, optimizer: { lr: 0.1 }, warmup: 2 };
  const [told = ""] = warnings(await collect(finetune(diverging)));
  t.regex(
    told,
    /^step \d+: training has diverged: .*; lower the learning rate \(0\.10 at this step; optimizer\.lr\) or lengthen the warm-up \(warmup\)$/,
  );
  await t.throwsAsync(finetune({ resume: diverging.output, steps: 30 }).result, {
    message:
      /none is good; start a new run with a lower learning rate \(optimizer\.lr\) or a longer warm-up \(warmup\); overwrite replaces this one/,
  });
  await quiet(t, { ...diverging, optimizer: { lr: 0.001 }, overwrite: true });
  await quiet(t, { ...diverging, warmup: 23, overwrite: true });
});

test.serial("a damaged checkpoint without an intact one before it: overwrite", async (t) => {
  const first = options({ steps: 4, saveEvery: 4 });
  await finetune(first).result;
  truncateSync(join(first.output, "checkpoint-4", "optimizer.safetensors"), 50);
  await t.throwsAsync(finetune({ resume: first.output, steps: 6 }).result, {
    code: "ERR_FILE_FORMAT",
    message: /no earlier checkpoint is intact; start the run again in the same folder with overwrite$/,
  });
  await finetune({ ...first, overwrite: true }).result;
  t.is((await finetune({ resume: first.output, steps: 6 }).result).steps, 6);
});

test.serial(
  "a run without a checkpoint, in a folder with another run's: resume by the other's name",
  async (t) => {
    const first = options({ steps: 4, saveEvery: 2, keep: 9 });
    await finetune(first).result;
    // A branch without a checkpoint, and without its origin, which was removed.
    const own = join(first.output, "checkpoint-2");
    await finetune({ resume: own, optimizer: { lr: 1e-3 }, saveEvery: "never" }).result;
    rmSync(own, { recursive: true });
    const error = await t.throwsAsync(finetune({ resume: first.output, steps: 6 }).result, {
      message:
        /the run has saved no checkpoint to resume from; \S+ is of another run; continue from it with resume \S+$/,
    });
    const [, other] = /continue from it with resume (\S+)$/.exec(error.message) ?? [];
    t.is((await finetune({ resume: other as string, steps: 6 }).result).steps, 6);
    // Without any checkpoint the run starts again.
    await finetune({ ...first, overwrite: true, saveEvery: "never" }).result;
    await t.throwsAsync(finetune({ resume: first.output, steps: 6 }).result, {
      message:
        /there is no checkpoint to resume from; start the run again in the same folder with overwrite$/,
    });
    await finetune({ ...first, overwrite: true }).result;
    t.is((await finetune({ resume: first.output, steps: 6 }).result).steps, 6);
  },
);

test.serial("a run that does not fit: more memory, and auto", async (t) => {
  const run = options({ steps: 1 });
  const { peakBytes, mapped } = await estimate(run);
  const enough = peakBytes + mapped;
  await t.throwsAsync(finetune({ ...run, memory: 10_000 }).result, {
    code: "ERR_OUT_OF_MEMORY",
    message: /no settings were found that fit: .*, or give it more with memory$/,
  });
  await quiet(t, { ...run, memory: enough });
  const { batchSize: _, gradientAccumulation: __, ...open } = options({ steps: 1 });
  let bound = (await estimate(open)).peakBytes - 1;
  while ((await estimate({ ...open, memory: bound })).suggestion === undefined)
    bound = Math.floor(bound * 0.9);
  await withFree(bound, () =>
    t.throwsAsync(finetune(open).result, {
      code: "ERR_OUT_OF_MEMORY",
      message: /; memory auto chooses them automatically$/,
    }),
  );
  // `auto` uses seven eighths of the free memory.
  const { steps } = await withFree(
    Math.ceil((bound * 8) / 7),
    () => finetune({ ...open, memory: "auto" }).result,
  );
  t.is(steps, 1);
  await t.throwsAsync(finetune({ resume: run.output, steps: 2, memory: 10_000 }).result, {
    code: "ERR_OUT_OF_MEMORY",
    message: /a resumed run keeps its settings: free memory, or give it more with memory$/,
  });
  t.is((await finetune({ resume: run.output, steps: 2, memory: enough * 2 }).result).steps, 2);
});

test.serial("an adapter without a head: one of a classifier, or none", async (t) => {
  const model = await tinyEncoder();
  const writer = options({ steps: 1 });
  await finetune(writer).result;
  const rows = rowsFile(seaAndLand(8));
  const { lora: _, ...labelled } = options({ model, data: rows, steps: 1 });
  const refused = options({ steps: 1 });
  await t.throwsAsync(finetune({ ...labelled, adapter: writer.output, output: refused.output }).result, {
    message: /start from an adapter of a classifier, or leave adapter out$/,
  });
  await finetune(labelled).result;
  const next = { ...labelled, adapter: labelled.output, output: refused.output };
  t.is((await finetune(next).result).steps, 1);
});

test.serial("an option that the optimizer does not have, or that is null, is omitted", async (t) => {
  const lion = options({ steps: 1, optimizer: { type: "lion", lr: 1e-4 } });
  await t.throwsAsync(finetune({ ...lion, optimizer: { ...lion.optimizer, eps: 1e-8 } }).result, {
    message: /optimizer\.eps has no effect with the optimizer lion; leave it out$/,
  });
  await t.throwsAsync(finetune({ ...lion, batchSize: null as never }).result, {
    message: /batchSize is null; leave it out for its default$/,
  });
  const { batchSize: _, ...rest } = lion;
  t.is((await finetune(rest).result).steps, 1);
});

test.serial("rows of speech: without packing", async (t) => {
  const { lora: _, ...speech } = options({ steps: 1, language: "en" });
  const heard = { ...speech, model: await tinyWhisper(), data: tones(4) };
  await t.throwsAsync(finetune({ ...heard, packing: true }).result, { message: /leave packing out$/ });
  t.is((await finetune(heard).result).steps, 1);
});

test.serial("options that contradict an adapter's: omitted, or a new adapter", async (t) => {
  const first = options({ steps: 1 });
  await finetune(first).result;
  const { lora: _, ...rest } = options({ steps: 1 });
  const contradicting = { ...rest, adapter: first.output, lora: { r: 3 } };
  await t.throwsAsync(finetune(contradicting).result, {
    message: /leave them out, or start a new adapter without adapter$/,
  });
  t.is((await finetune({ ...rest, adapter: first.output }).result).steps, 1);
  await finetune({ ...rest, lora: { r: 3 }, output: first.output, overwrite: true }).result;
  const config = JSON.parse(readFileSync(join(first.output, "adapter_config.json"), "utf8")) as { r: number };
  t.is(config.r, 3);
});
