/** `memory` offloads weights where nothing less harmful fits, and checks the memory of the host that they take. */
import { copyFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  type DeviceInfo,
  estimate,
  finetune,
  type FinetuneOptions,
  LlamaForCausalLM,
  manualSeed,
  memory,
  saveModel,
  type StartEvent,
  type Suggestion,
  sweep,
} from "../../src/index.js";
import { native, session } from "../../src/native/binding.js";
import { testDevices } from "../devices.js";
import { temporary, tinyModel } from "../hashed.js";
import { rowsFile } from "../tiny-encoder.js";
import { adapterBytes, collect } from "./quick.js";

/** Returns the folder of a model whose blocks have most of the weights. */
async function makeModel(): Promise<string> {
  manualSeed(5);
  const config = {
    vocab_size: 99,
    hidden_size: 128,
    intermediate_size: 384,
    num_hidden_layers: 8,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 64,
    tie_word_embeddings: true,
    eos_token_id: 2,
  };
  const folder = join(temporary(), "model");
  const model = LlamaForCausalLM.fromConfig(config, { device: "cpu" });
  await saveModel(model, folder);
  model.dispose();
  copyFileSync(join(tinyModel(), "tokenizer.json"), join(folder, "tokenizer.json"));
  return folder;
}

const model = await makeModel();
const data = rowsFile(Array.from({ length: 24 }, (_, i) => ({ text: `whale ${i} swam on and on` })));

type Options = FinetuneOptions & { output: string };

function options(device: string, more: Partial<FinetuneOptions> = {}): Options {
  return {
    model,
    data,
    device,
    output: join(temporary(), "out"),
    lora: { r: 2 },
    optimizer: { lr: 1e-2 },
    batchSize: 2,
    gradientAccumulation: 1,
    gradientCheckpointing: true,
    steps: 8,
    ...more,
  };
}

/** Calls `fn` as if GPUs had separate memory, and the system had `bytes` bytes free. */
async function withDiscrete<T>(bytes: number, fn: () => Promise<T>): Promise<T> {
  const [binding, list, available] = [native(), native().devices, process.availableMemory];
  binding.devices = () =>
    (list() as DeviceInfo[]).map((one) => (one.kind === "cpu" ? one : { ...one, kind: "discrete" }));
  process.availableMemory = () => bytes;
  try {
    return await fn();
  } finally {
    binding.devices = list;
    process.availableMemory = available;
  }
}

for (const device of testDevices().filter((one) => one !== "cpu")) {
  test.serial(`${device}: storages are tried first, then offloading, then shorter rows`, async (t) => {
    const text = "the whale swam on and on, and the sea was wide and deep";
    const open = options(device, { data: rowsFile([{ text }]), batchSize: 1 });
    const whole = await estimate(open);
    const all: Suggestion[] = [];
    for (let share = 1; share > 0.02; share *= 0.9) {
      const given = { ...open, memory: Math.floor(whole.peakBytes * share) };
      const { fits, suggestion } = await estimate(given);
      if (fits) continue;
      if (suggestion === undefined) break;
      t.true((await estimate({ ...given, ...suggestion })).fits);
      all.push(suggestion);
    }
    const first = (is: (one: Suggestion) => boolean): number => all.findIndex(is);
    const [stored, offloaded, shorter] = [
      first((one) => one.quantize === "nf4"),
      first((one) => one.offloadWeights === true),
      first((one) => one.maxLength !== undefined),
    ];
    t.log(all.map((one) => Object.entries(one).join(" ")));
    t.true(stored >= 0 && offloaded > stored && shorter > offloaded);
  });

  test.serial(
    `${device}: a resumed run that must take less memory offloads, with the same bits`,
    async (t) => {
      const whole = options(device, { saveEvery: 4, keep: 9 });
      await collect(finetune(whole));
      const held = await estimate(whole);
      const { peakBytes } = await estimate({ ...whole, offloadWeights: true });
      const output = join(temporary(), "resumed");
      const bound = Math.ceil((peakBytes + held.peakBytes) / 2);
      session().restartPeak("gpu");
      const before = memory("gpu").reserved;
      const resume = join(whole.output, "checkpoint-4");
      const events = await collect(finetune({ resume, output, device, memory: bound }));
      const start = events.find((event) => event.type === "start") as StartEvent;
      t.regex(
        start.memory?.chosen.join() ?? "",
        /^weights of the blocks on the host[^,]*, and steps take longer$/,
      );
      t.true(memory("gpu").peak - before <= bound);
      t.true(adapterBytes(output).equals(adapterBytes(whole.output)));
    },
  );

  test.serial(
    `${device}: a given offloadWeights false is kept, and a start that changes weights too`,
    async (t) => {
      const kept = options(device, { dtype: "f32", quantize: "nf4", maxLength: 24 });
      const { peakBytes } = await estimate({ ...kept, offloadWeights: true });
      const bound = peakBytes + 1;
      t.deepEqual((await estimate({ ...kept, memory: bound })).suggestion, {
        gradientAccumulation: 2,
        batchSize: 1,
        offloadWeights: true,
      });
      const given = { ...kept, offloadWeights: false, memory: bound };
      t.deepEqual((await estimate(given)).given, ["offloadWeights"]);
      const resumed = options(device, {
        lora: { r: 2, initLoraWeights: "pissa" },
        batchSize: 1,
        dtype: "bf16",
      });
      const limited = { ...resumed, memory: Math.floor((await estimate(resumed)).peakBytes * 0.4) };
      t.is((await estimate(limited)).suggestion?.offloadWeights, undefined);
    },
  );

  test.serial(
    `${device}: offloaded weights that the system's memory cannot keep are refused before they are read`,
    async (t) => {
      const [given, file] = [{ dtype: "bf16", offloadWeights: true } as const, { offloadWeights: true }];
      const { offloaded } = await estimate(options(device, given));
      const bytes = offloaded?.inMemory as number;
      t.true(bytes > 0);
      const refused = {
        code: "ERR_OUT_OF_MEMORY",
        message:
          /^finetune: the run would keep [\d.]+ [KM]iB of offloaded weights in the system's memory, and [\d.]+ [KM]iB are free; /,
      };
      await withDiscrete(bytes - 1, async () => {
        t.false((await estimate(options(device, given))).fits);
        const { message } = await t.throwsAsync(finetune(options(device, given)).result, refused);
        t.regex(message, /quantize q8_0 .*take/);
        const small = {
          code: "ERR_OUT_OF_MEMORY",
          message: /^sweep: the trials would keep .* are free; free memory/,
        };
        const trials = { space: { seed: [1, 2] }, ...options(device, { ...given, steps: 1 }) };
        await t.throwsAsync(sweep(trials).result, small);
        await t.notThrowsAsync(
          sweep({ ...trials, quantize: "nf4", output: join(temporary(), "out") }).result,
        );
        // Weights that stay in their file take no memory.
        t.is((await estimate(options(device, file))).fits, undefined);
        const limited = options(device, { ...given, memory: "1GB", steps: 1 });
        const events = await collect(finetune(limited));
        const start = events.find((event) => event.type === "start") as StartEvent;
        t.true((start.memory?.offloaded?.inMemory ?? 0) < bytes);
      });
      await withDiscrete(bytes, async () => {
        t.is((await estimate(options(device, given))).fits, undefined);
      });
    },
  );
}
