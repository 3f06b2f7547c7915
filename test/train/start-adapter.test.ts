/** Runs that start from an adapter: the options they take from it, the ones they refuse, and how they resume. */
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";

import test from "ava";
import {
  estimate,
  finetune,
  loadModel,
  lora,
  type FinetuneOptions,
  type TrainEvent,
} from "../../src/index.js";
import { optim, safetensors } from "../../src/index.js";
import { digestFile, digestFolder } from "../../src/train/output/manifest.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { rowsFile, tinyEncoder } from "../tiny-encoder.js";
import { adapterBytes, collect, quick } from "./quick.js";

type Options = FinetuneOptions & { output: string };
const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): Options =>
  quick(given, "cpu", {
    lora: { r: 3, loraAlpha: 5, targetModules: ["q_proj", "v_proj"] },
    ...more,
  }) as Options;
/** Returns options that leave the model and the adapter's options to the adapter. */
const from = (adapter: string, more: Partial<FinetuneOptions> = {}): Options => {
  const { model: _, lora: _lora, ...rest } = options();
  return { ...rest, adapter, ...more } as Options;
};

let trained: string;
const runOf = (folder: string): { options: Record<string, unknown>; identities: Record<string, string> } =>
  JSON.parse(readFileSync(join(folder, "run.json"), "utf8")) as never;
const startOf = (events: readonly TrainEvent[]) => events.find((event) => event.type === "start");
const lossesOf = (events: readonly TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event.loss] : []));

test.before(async () => {
  const first = options({ seed: 3 });
  await finetune(first).result;
  trained = first.output;
});

test.serial(
  "a run starts with the adapter's values, options and base model, and does not change its folder",
  async (t) => {
    const before = await digestFolder(trained);
    const still = from(trained, { steps: 2, optimizer: { lr: 0 } });
    const events = await collect(finetune(still));
    t.like(startOf(events), {
      rank: 3,
      alpha: 5,
      targets: ["q_proj", "v_proj"],
      adapter: trained,
      resumedFrom: 0,
    });
    // A rate of 0 changes nothing.
    t.true(adapterBytes(still.output).equals(adapterBytes(trained)));
    t.like(runOf(still.output).options, {
      adapter: trained,
      model: given.model,
      lora: { r: 3, loraAlpha: 5 },
    });
    t.is(
      runOf(still.output).identities["adapter"],
      (await digestFile(join(trained, "adapter_model.safetensors"))).sha256,
    );

    const onward = from(trained, { output: join(temporary(), "on") });
    const losses = lossesOf(await collect(finetune(onward)));
    const fresh = lossesOf(await collect(finetune(options())));
    t.true((losses[0] as number) < 0.97 * (fresh[0] as number), `${losses[0]} ${fresh[0]}`);
    t.deepEqual(await digestFolder(trained), before);
  },
);

test.serial(
  "the optimizer starts without state: the first step equals a fresh optimizer's over the adapter",
  async (t) => {
    const one = from(trained, {
      steps: 1,
      warmup: 0,
      gradientAccumulation: 1,
      clipNorm: 0,
      optimizer: { lr: 0.01, weightDecay: 0 },
    });
    await finetune(one).result;
    const model = await loadModel(given.model, { device: "cpu" });
    await lora.loadAdapter(model, trained, { trainable: true });
    const parameters = [...model.parameters()].filter(({ requiresGrad }) => requiresGrad);
    // AdamW's first step moves each value by the rate, for any gradient: |Δ| = lr · |g| / (|g| + eps).
    const optimizer = new optim.AdamW(parameters, { lr: 0.01 });
    t.is(optimizer.groups[0]?.params.length, parameters.length);
    optimizer.dispose();
    const moved = await safetensors.load(join(one.output, "adapter_model.safetensors"));
    const start = await safetensors.load(join(trained, "adapter_model.safetensors"));
    let most = 0;
    for (const [name, tensor] of Object.entries(moved)) {
      const [now, then] = [await tensor.data(), await (start[name] as typeof tensor).data()];
      for (const [i, value] of now.entries()) most = Math.max(most, Math.abs(value - (then[i] as number)));
    }
    // With the old moments the change would differ; f32 rounds values below 1 by 6e-8.
    t.true(most <= 0.01 + 1e-6 && most > 0.009, `${most}`);
    model.dispose();
  },
);

test.serial("such a run is stopped and resumed to the same bits, without the adapter's folder", async (t) => {
  const copy = join(temporary(), "start");
  cpSync(trained, copy, { recursive: true });
  const whole = from(copy, { steps: 10 });
  await finetune(whole).result;
  const cut = from(copy, { steps: 10 });
  const run = finetune(cut);
  for await (const event of run) if (event.type === "step" && event.step === 3) void run.stop();
  await run.result;
  rmSync(copy, { recursive: true });
  await finetune({ resume: cut.output }).result;
  t.true(adapterBytes(whole.output).equals(adapterBytes(cut.output)));
  t.is(runOf(cut.output).identities["adapter"], runOf(whole.output).identities["adapter"]);
  // A relative path is recorded as the same absolute one each time.
  for (const steps of [11, 12])
    await finetune({ resume: cut.output, adapter: relative(process.cwd(), copy), steps }).result;
  await t.throwsAsync(finetune({ resume: cut.output, adapter: trained }).result, {
    code: "ERR_OPTION",
    message: /adapter was \S+, and is \S+ now/,
  });
});

test.serial("such a run is resumed in the same folder with a named adapter", async (t) => {
  const first = options({ steps: 1, lora: { r: 2, name: "ada" } });
  await finetune(first).result;
  const second = from(first.output, { steps: 1, lora: { name: "ada" } });
  await finetune(second).result;
  const resume = { resume: second.output, steps: 2 };
  const { steps } = await finetune({ ...resume, adapter: first.output }).result;
  t.is(steps, 2);
  t.is(runOf(second.output).options["adapter"], join(first.output, "ada"));
  await t.throwsAsync(finetune({ ...resume, steps: 3, adapter: trained }).result, {
    code: "ERR_OPTION",
    message: /adapter was .*ada, and is /,
  });
});

test.serial(
  "options that contradict the adapter are refused by name, and equal ones are accepted",
  async (t) => {
    const refused: [Partial<FinetuneOptions>, RegExp][] = [
      [{ lora: { r: 8 } }, /lora\.r is 8, and the adapter has 3/],
      [
        { lora: { loraAlpha: 16, useDora: true } },
        /lora\.loraAlpha is 16, and the adapter has 5; lora\.useDora is true, and the adapter has false/,
      ],
      [
        { lora: { targetModules: "all-linear" } },
        /lora\.targetModules is all-linear, and the adapter has \["q_proj", "v_proj"\]/,
      ],
      [{ lora: { loraDropout: 0.1 } }, /lora\.loraDropout/],
      [{ lora: { initLoraWeights: "pissa" } }, /lora\.initLoraWeights is pissa/],
      [{ lora: { modulesToSave: ["lm_head"] } }, /lora\.modulesToSave is \["lm_head"\], and the adapter has/],
    ];
    for (const [more, message] of refused)
      await t.throwsAsync(finetune(from(trained, more)).result, { code: "ERR_OPTION", message });
    const same = { r: 3, loraAlpha: 5, targetModules: ["v_proj", "q_proj"], loraDropout: 0 };
    t.is((await finetune(from(trained, { lora: same, steps: 1 })).result).steps, 1);
  },
);

test.serial("the output is not the adapter's own folder, unless it is to be replaced", async (t) => {
  const folder = join(temporary(), "own");
  cpSync(trained, folder, { recursive: true });
  const before = adapterBytes(folder);
  const own = from(folder, { output: folder, steps: 3 });
  await t.throwsAsync(finetune(own).result, {
    code: "ERR_OUTPUT_EXISTS",
    message:
      /is the folder of the adapter that the run starts from; choose another output, or .* with overwrite/,
  });
  t.true(before.equals(adapterBytes(folder)));
  await finetune({ ...own, overwrite: true }).result;
  t.false(before.equals(adapterBytes(folder)));
  const elsewhere = from(trained, { steps: 3 });
  await finetune(elsewhere).result;
  t.true(adapterBytes(elsewhere.output).equals(adapterBytes(folder)));
});

test.serial("a folder without an adapter, or with an unsuitable one, is refused", async (t) => {
  const [none, empty, file] = [join(temporary(), "none"), temporary(), join(temporary(), "a.safetensors")];
  writeFileSync(file, "");
  const bare = temporary();
  cpSync(join(trained, "adapter_config.json"), join(bare, "adapter_config.json"));
  const nameless = temporary();
  cpSync(join(trained, "adapter_model.safetensors"), join(nameless, "adapter_model.safetensors"));
  const config = JSON.parse(readFileSync(join(trained, "adapter_config.json"), "utf8")) as object;
  writeFileSync(
    join(nameless, "adapter_config.json"),
    JSON.stringify({ ...config, base_model_name_or_path: null }),
  );
  const cases: [string, string, RegExp][] = [
    [none, "ERR_FILE_NOT_FOUND", /there is no such folder/],
    [empty, "ERR_FILE_NOT_FOUND", /holds no adapter/],
    [file, "ERR_FILE_FORMAT", /is a file; give the folder of an adapter/],
    [bare, "ERR_FILE_NOT_FOUND", /adapter_model\.safetensors: there is no such file/],
    [nameless, "ERR_OPTION", /does not name its base model: give model/],
  ];
  for (const [adapter, code, message] of cases) {
    await t.throwsAsync(finetune(from(adapter)).result, { code, message }, adapter);
    await t.throwsAsync(estimate(from(adapter)), { code, message }, adapter);
  }
  t.is((await finetune({ ...from(nameless, { steps: 1 }), model: given.model }).result).steps, 1);
  // An adapter for another model.
  const encoder = await tinyEncoder();
  const data = rowsFile([
    { text: "a", label: "x" },
    { text: "b", label: "y" },
  ]);
  await t.throwsAsync(finetune({ ...from(trained, { data }), model: encoder }).result, {
    code: "ERR_OPTION",
  });
});

test.serial("the estimate counts the adapter's own rank and layers", async (t) => {
  const [small, large] = [await estimate(from(trained)), await estimate(options({ lora: { r: 48 } }))];
  const same = await estimate(options());
  t.is(small.adapters, same.adapters);
  t.is(small.optimizer, same.optimizer);
  t.true(small.adapters < large.adapters);
});

test.serial(
  "a classifier keeps the order of the adapter's classes, and refuses unknown labels",
  async (t) => {
    const rows = (labels: readonly string[]): string =>
      rowsFile(
        Array.from({ length: 12 }, (_, i) => ({
          text: `a ${i}`,
          label: labels[i % labels.length] as string,
        })),
      );
    const model = await tinyEncoder();
    const first = options({ model, data: rows(["sea", "land"]), lora: { r: 2 }, steps: 2 });
    await finetune(first).result;
    // Data with one class, and with a different order: sorted, the labels would get other indices.
    const names = join(first.output, "labels.json");
    writeFileSync(
      names,
      JSON.stringify({ id2label: { 0: "sea", 1: "land" }, label2id: { sea: 0, land: 1 } }),
    );
    const next = from(first.output, { data: rows(["land", "sea"]), steps: 2 });
    t.deepEqual(startOf(await collect(finetune(next)))?.labels, ["sea", "land"]);
    t.deepEqual(startOf(await collect(finetune({ resume: next.output, steps: 4 })))?.labels, ["sea", "land"]);
    await t.throwsAsync(finetune(from(first.output, { data: rows(["land", "air"]) })).result, {
      code: "ERR_DATA_ROW",
      message: /does not know the classes air; it has sea, land/,
    });
    await t.throwsAsync(finetune(from(trained, { model, data: rows(["land", "sea"]) })).result, {
      code: "ERR_OPTION",
      message: /it has no classification head to train/,
    });
  },
);

const FORMS: Record<string, NonNullable<FinetuneOptions["lora"]>> = {
  pissa: { initLoraWeights: "pissa" },
  olora: { initLoraWeights: "olora" },
  eva: { initLoraWeights: "eva" },
  dora: { useDora: true },
  rslora: { useRslora: true, rankPattern: { q_proj: 2 }, alphaPattern: { v_proj: 3 } },
  biases: { bias: "lora_only" },
  modules: { modulesToSave: ["lm_head"] },
  named: { name: "mine" },
};

for (const [form, more] of Object.entries(FORMS))
  test.serial(`an adapter of another form is trained further: ${form}`, async (t) => {
    const first = options({ lora: { r: 4, ...more }, steps: 3 });
    await finetune(first).result;
    const name = more.name === undefined ? {} : { lora: { name: more.name } };
    const still = from(first.output, { steps: 2, optimizer: { lr: 0 }, ...name });
    const events = await collect(finetune(still));
    t.is(startOf(events)?.rank, 4);
    const below = more.name ?? "";
    t.true(adapterBytes(join(still.output, below)).equals(adapterBytes(join(first.output, below))));
    const [further, fresh] = [
      await estimate(from(first.output, name)),
      await estimate({ ...first, steps: 2 }),
    ];
    // EVA distributes the ranks by the data, which the estimate of a fresh run does not read.
    if (form !== "eva") t.is(further.adapters, fresh.adapters);
  });
