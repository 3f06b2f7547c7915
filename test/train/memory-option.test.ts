/** `memory` chooses the options that make a run fit, respects the limit, and refuses impossible ones. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";

import {
  estimate,
  finetune,
  LlamaForCausalLM,
  loadModel,
  manualSeed,
  memory,
  randn,
  scope,
  type FinetuneOptions,
} from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { computeSeconds } from "../../src/train/rate.js";
import { atRest } from "../at-rest.js";
import { runHere } from "../cli/lowrank.js";
import { temporary } from "../hashed.js";
import { runOf, SETTINGS, SIZES, type Setting } from "./memory-settings.js";
import { adapterBytes, collect } from "./quick.js";

/** Returns the options of the setting with this name. */
function named(name: string, more: Partial<FinetuneOptions> = {}): Promise<FinetuneOptions> {
  const setting = SETTINGS.find((one) => one.name === name) as Setting;
  return runOf({ ...setting, options: { ...setting.options, ...more } }, "cpu");
}

/** Calls `fn` as if the system had `bytes` bytes free. */
async function withFree<T>(bytes: number, fn: () => Promise<T>): Promise<T> {
  const real = process.availableMemory;
  process.availableMemory = () => bytes;
  try {
    return await fn();
  } finally {
    process.availableMemory = real;
  }
}

/** Returns settings in which every option may be chosen. */
async function open(more: Partial<FinetuneOptions> = {}): Promise<FinetuneOptions> {
  const { batchSize: _, gradientAccumulation: __, maxLength: ___, ...options } = await named("long blocks");
  return { ...options, ...more };
}

const ORDER = ["gradientCheckpointing", "batchSize", "dtype", "quantize", "maxLength"];

/** Tries decreasing limits; returns the suggestions, which all fit. */
async function suggestions(
  t: ExecutionContext,
  options: FinetuneOptions,
): Promise<{ names: string[]; given: readonly string[]; rows: number }[]> {
  const whole = await estimate(options);
  const all: { names: string[]; given: readonly string[]; rows: number }[] = [];
  for (let share = 1; share > 0.02; share *= 0.8) {
    const bound = Math.floor((whole.peakBytes + whole.mapped) * share);
    const { fits, suggestion, costs, given = [] } = await estimate({ ...options, memory: bound });
    if (fits) continue;
    if (suggestion === undefined) break;
    t.true((costs as string[]).length > 0);
    t.true((await estimate({ ...options, ...suggestion, memory: bound })).fits);
    const { batchSize, gradientAccumulation } = { ...options, ...suggestion };
    all.push({ names: Object.keys(suggestion), given, rows: (batchSize ?? 1) * (gradientAccumulation ?? 8) });
  }
  return all;
}

/** Returns the index of the last choice in `ORDER` that was needed. */
const reached = (names: readonly string[]): number => Math.max(...names.map((name) => ORDER.indexOf(name)));

test.serial(
  "checkpointing, batches, storage and length are chosen in this order, as far as needed",
  async (t) => {
    const all = await suggestions(t, await open({ batchSize: 6, gradientAccumulation: 2 }));
    for (const [i, { names, given, rows }] of all.entries()) {
      t.deepEqual(given, []);
      t.true(i === 0 || reached(names) >= reached(all[i - 1]?.names ?? []), names.join());
      t.true(names.includes("gradientCheckpointing"));
      t.is(rows, 12);
    }
    const seen = new Set(all.flatMap(({ names }) => names));
    t.deepEqual([...seen].toSorted(), [...ORDER, "gradientAccumulation"].toSorted());
  },
);

test.serial("a given option is overridden only where nothing else helps, and is then named", async (t) => {
  const given = { maxLength: 256, quantize: "q8_0" } as const;
  const all = await suggestions(t, await open({ ...given, batchSize: 6, gradientAccumulation: 2 }));
  const kept = all.findIndex((one) => one.given.length > 0);
  t.true(kept > 0);
  for (const [i, one] of all.entries()) {
    t.is(one.given.length > 0, i >= kept, one.names.join());
    const overridden = Object.keys(given).filter((name) => one.names.includes(name));
    t.deepEqual([...one.given].toSorted(), overridden.toSorted());
  }
  const names = (which: typeof all): string[] => [...new Set(which.flatMap((one) => one.names))].toSorted();
  const left = ["batchSize", "dtype", "gradientAccumulation", "gradientCheckpointing"];
  t.true(names(all.slice(0, kept)).every((name) => left.includes(name)));
  t.deepEqual(names(all.slice(kept)), [...ORDER, "gradientAccumulation"].toSorted());
});

test.serial("a run keeps its given options, and names the one that prevents it from fitting", async (t) => {
  const options = await open({ batchSize: 4, gradientAccumulation: 1, maxLength: 256, dtype: "f32" });
  const least = {
    batchSize: 1,
    gradientAccumulation: 4,
    gradientCheckpointing: true,
    quantize: "nf4",
  } as const;
  const { peakBytes, mapped } = await estimate({ ...options, ...least });
  const bound = peakBytes + mapped - 1;
  const told = await estimate({ ...options, memory: bound });
  t.deepEqual(told.given, ["dtype"]);
  await t.throwsAsync(finetune({ ...options, memory: bound, output: temporary() }).result, {
    code: "ERR_OUT_OF_MEMORY",
    message:
      /dtype f32 was given, is kept, and stands in the way: gradientCheckpointing true, .* take [^;]*$/,
  });
});

test.serial(
  "a run that cannot fit is refused before anything is loaded, and the error says what would fit",
  async (t) => {
    const options = await named("long blocks");
    const before = await atRest("cpu");
    const refused = await t.throwsAsync(finetune({ ...options, memory: 10_000 }).result, {
      code: "ERR_OUT_OF_MEMORY",
      message:
        /the run would need .* on cpu \(weights .* activations .*\), and memory is 9\.8 KiB; no settings were/,
    });
    t.regex(refused.message, /smaller model or a lower rank/);
    const { peakBytes } = await estimate(options);
    await withFree(peakBytes - 1, async () => {
      t.false((await estimate(options)).fits);
      await t.throwsAsync(finetune(options).result, {
        code: "ERR_OUT_OF_MEMORY",
        message: /are free; gradientCheckpointing true take .*; memory auto chooses them automatically/,
      });
    });
    const { live, mapped, tensors } = memory("cpu");
    t.deepEqual(
      { live, mapped, tensors },
      { live: before.live, mapped: before.mapped, tensors: before.tensors },
    );
    t.false(existsSync(join(options.output as string, "adapter_config.json")));
    await withFree(peakBytes, async () => t.true((await estimate(options)).fits));
  },
);

test.serial("auto limits itself to seven eighths of the free memory", async (t) => {
  const options = await named("long blocks", { steps: 3 });
  const { peakBytes, mapped } = await estimate(options);
  await withFree(Math.floor((peakBytes + mapped) * 1.1), async () => {
    const events = await collect(finetune({ ...options, memory: "auto" }));
    const start = events.find((event) => event.type === "start");
    t.deepEqual(start?.memory?.chosen, ["gradient checkpointing: about a third more time"]);
    t.is(start?.memory?.limit, Math.floor(Math.floor((peakBytes + mapped) * 1.1) * (7 / 8)));
    t.true(
      start?.memory !== undefined &&
        start.memory.peakBytes + start.memory.mapped <= (start.memory.limit ?? 0),
    );
    for (const event of events)
      if (event.type === "step") t.true(event.memoryBytes <= (start?.memory?.limit ?? 0));
  });
});

test.serial("a resumed run keeps the chosen options, and ends with the same bits", async (t) => {
  const bound = {
    memory: "5MB",
    batchSize: 4,
    gradientAccumulation: 1,
    steps: 6,
    schedule: "constant",
  } as const;
  const options = await named("long blocks", { ...bound, saveEvery: 3 });
  const whole = await finetune(options).result;
  const half = { ...options, output: temporary(), steps: 3 };
  await finetune(half).result;
  const record = JSON.parse(readFileSync(join(half.output, "run.json"), "utf8")) as {
    options: Record<string, unknown>;
  };
  const { memory: recorded, batchSize, gradientAccumulation, gradientCheckpointing } = record.options;
  t.deepEqual(
    { recorded, rows: (batchSize as number) * (gradientAccumulation as number), gradientCheckpointing },
    { recorded: 5e6, rows: 4, gradientCheckpointing: true },
  );
  t.true((batchSize as number) < 4);
  const resumed = await finetune({ resume: half.output, steps: 6 }).result;
  t.true(adapterBytes(resumed.adapter).equals(adapterBytes(whole.adapter)));
  await t.throwsAsync(finetune({ resume: half.output, steps: 7, memory: 1e5 }).result, {
    code: "ERR_OUT_OF_MEMORY",
    message: /a resumed run keeps its settings/,
  });
});

test.serial(
  "the estimate for a loaded model equals the one for its folder, for every storage type",
  async (t) => {
    for (const name of [
      "long blocks",
      "weights in bf16",
      "weights in q8_0",
      "a classifier",
      "a GGUF file in q4_0",
    ]) {
      const options = await named(name, name === "a classifier" ? { quantize: undefined } : {});
      const { dtype, quantize, ...rest } = options;
      const told = await estimate(options);
      const task =
        name === "a classifier" ? ({ task: "sequence-classification", numLabels: 2 } as const) : {};
      const model = await loadModel(options.model as string, {
        device: "cpu",
        onNotice: () => {},
        ...task,
        ...(dtype !== undefined && { dtype }),
        ...(quantize !== undefined && { quantize }),
      });
      const { limit: _, secondsPerStep: _s, ...loaded } = await estimate({ ...rest, model });
      const { limit: __, secondsPerStep: __s, ...folder } = told;
      t.deepEqual(loaded, folder, name);
      model.dispose();
    }
  },
);

test.serial("a model built from a configuration alone is estimated, too", async (t) => {
  const options = await named("long blocks");
  const from = await loadModel(options.model as string, { device: "cpu" });
  const model = LlamaForCausalLM.fromConfig({ ...SIZES, tie_word_embeddings: true }, { device: "cpu" });
  model.tokenizer = from.tokenizer;
  const [told, folder] = [await estimate({ ...options, model }), await estimate(options)];
  t.is(told.mapped, 0);
  t.is(told.weights, folder.weights);
  from.dispose();
  model.dispose();
});

test.serial("with several texts the largest determines the estimate, in any order", async (t) => {
  const options = await named("long blocks");
  const folder = temporary();
  const [small, large] = ["small.txt", "large.txt"].map((name) => join(folder, name)) as [string, string];
  writeFileSync(small, "land");
  writeFileSync(large, "sea and land ".repeat(20_000));
  const told: number[] = [];
  for (const data of [large, [large, small], [small, large]])
    told.push((await estimate({ ...options, data })).peakBytes);
  t.deepEqual(told, [told[0], told[0], told[0]]);
});

test.serial(
  "estimates leave nothing behind, draw no random numbers, and do not affect each other",
  async (t) => {
    const [one, other] = [await named("long blocks"), await named("DoRA")];
    const alone = [await estimate(one), await estimate(other)].map(({ peakBytes }) => peakBytes);
    const before = await atRest("meta:cpu");
    manualSeed(5);
    const drawn = await randn([4], { device: "cpu" }).data();
    manualSeed(5);
    const both = await Promise.all([one, other, one].map(estimate));
    t.deepEqual(
      both.map(({ peakBytes }) => peakBytes),
      [alone[0], alone[1], alone[0]],
    );
    t.deepEqual(await randn([4], { device: "cpu" }).data(), drawn);
    const { live, tensors } = memory("meta:cpu");
    t.deepEqual({ live, tensors }, { live: before.live, tensors: before.tensors });
  },
);

test.serial("arithmetic is counted on the meta device, and determines the time of a step", async (t) => {
  for (const device of ["cpu", "meta:cpu"] as const) {
    const before = session().work(device);
    scope(() => randn([5, 7], { device }).matmul(randn([7, 3], { device })));
    t.is(session().work(device) - before, 2 * 5 * 7 * 3, device);
  }
  const options = await named("long blocks");
  const recorded = async (changes: object): Promise<number> => {
    const before = session().work("meta:cpu");
    const { secondsPerStep } = await estimate({ ...options, ...changes });
    t.true(secondsPerStep > 0 && secondsPerStep < 3600, `${secondsPerStep} s`);
    return session().work("meta:cpu") - before;
  };
  // 64 times the tokens, and more attention. The seconds themselves depend on the machine.
  t.true((await recorded({})) > 64 * (await recorded({ batchSize: 1, maxLength: 16 })));
  const cost = {
    work: 3e9,
    hostSeconds: 0.5,
    product: { rows: 1, inner: 1, outer: 1, dtype: "f32" as const },
  };
  t.is(computeSeconds(cost, 1e9, 1), 4.5);
  t.is(computeSeconds(cost, 1e9, 8), 36);
});

test.serial("an invalid size is refused", async (t) => {
  const options = await named("short blocks");
  for (const size of [0, -1, 1.5, NaN, "2 gigs", "", "0GB", true, {}]) {
    await t.throwsAsync(estimate({ ...options, memory: size as never }), {
      code: "ERR_OPTION",
      message: /memory must be a number of bytes, a size such as "2GB", or "auto"/,
    });
  }
  for (const size of [1e9, "1GB", "1000 mb", "auto"])
    t.true((await estimate({ ...options, memory: size })).fits);
});

test.serial("the commands report the estimate", async (t) => {
  const options = await named("long blocks");
  const argv = [
    "--model",
    options.model as string,
    "--data",
    options.data as string,
    "--device",
    "cpu",
    "--rank",
    "8",
  ];
  const size = ["--batch-size", "4", "--grad-accum", "1", "--max-length", "256", "--steps", "2"];
  const told = await runHere("estimate", ...argv, ...size);
  t.is(told.status, 0, told.stderr);
  t.regex(
    told.stdout,
    /peak +\d.* on cpu, and .* of mapped weights\n +weights .*\n +adapters .*\n +optimizer /,
  );
  t.regex(
    told.stdout,
    /activations +.*of batches of 4 rows, up to 256 tokens each\n +a step +about .*\n +fits +yes/,
  );
  const json = await runHere("estimate", ...argv, ...size, "--memory", "8MB", "--json");
  const parsed = JSON.parse(json.stdout) as Awaited<ReturnType<typeof estimate>>;
  t.false(parsed.fits);
  t.deepEqual(parsed.suggestion, { gradientCheckpointing: true });
  t.is(parsed.limit, 8e6);
  const less = await runHere("estimate", ...argv, ...size, "--memory", "8MB");
  t.regex(
    less.stdout,
    /fits +no: 7\.6 MiB available\n +instead +--grad-checkpointing\n +gradient checkpointing: /,
  );
  const run = await runHere(
    "finetune",
    ...argv,
    ...size,
    "--memory",
    "8MB",
    "--output",
    join(temporary(), "out"),
  );
  t.is(run.status, 0, run.stderr);
  t.regex(run.stdout, /memory +.* at most, of 7\.6 MiB: weights .* activations/);
  t.regex(run.stdout, /chosen +gradient checkpointing: about a third more time/);
});

test.serial("a length that cuts off every trained token does not count as a setting that fits", async (t) => {
  const data = join(temporary(), "rows.jsonl");
  const row = { prompt: "once upon a time there was a ".repeat(4), completion: "hen" };
  writeFileSync(data, `${JSON.stringify(row)}\n`.repeat(4));
  const options = await named("long blocks", { data });
  t.is((await estimate({ ...options, memory: 1 })).suggestion, undefined);
  await t.throwsAsync(finetune({ ...options, memory: 1, output: temporary() }).result, {
    code: "ERR_OUT_OF_MEMORY",
    message: /no settings were found that fit/,
  });
});
