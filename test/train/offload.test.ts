/** Weights that the host keeps: the losses and the adapter of a run without offloading, in less memory of the device. */
import { copyFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  estimate,
  finetune,
  type FinetuneOptions,
  LlamaForCausalLM,
  manualSeed,
  memory,
  saveModel,
  type StartEvent,
  type TrainEvent,
} from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { runHere } from "../cli/lowrank.js";
import { testDevices } from "../devices.js";
import { temporary, tinyModel } from "../hashed.js";
import { runOnRanks } from "../ranks/processes.js";
import { rowsFile } from "../tiny-encoder.js";
import { runOf, SETTINGS } from "./memory-settings.js";
import { adapterBytes, collect } from "./quick.js";

/** The documented accuracy of an estimate. */
const WITHIN = 0.02;
const BLOCKS = 8;
const [HIDDEN, MLP] = [64, 192];
/** Bytes of the linear layers of a block, in f32. */
const BLOCK_BYTES = 4 * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * (HIDDEN / 2) + 3 * HIDDEN * MLP);

/** Returns the folder of a model whose blocks have most of the weights. */
async function makeModel(dtype?: "bf16"): Promise<string> {
  manualSeed(5);
  const config = {
    vocab_size: 99,
    hidden_size: HIDDEN,
    intermediate_size: MLP,
    num_hidden_layers: BLOCKS,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 64,
    tie_word_embeddings: true,
    eos_token_id: 2,
  };
  const folder = join(temporary(), "model");
  const model = LlamaForCausalLM.fromConfig(config, { device: "cpu" });
  await saveModel(model, folder, { dtype });
  model.dispose();
  copyFileSync(join(tinyModel(), "tokenizer.json"), join(folder, "tokenizer.json"));
  return folder;
}

const model = await makeModel();
const data = rowsFile(Array.from({ length: 24 }, (_, i) => ({ text: `whale ${i} swam on and on` })));

type Options = FinetuneOptions & { output: string };

function options(more: Partial<FinetuneOptions> = {}): Options {
  return {
    model,
    data,
    device: "gpu",
    output: join(temporary(), "out"),
    lora: { r: 2 },
    optimizer: { lr: 1e-2 },
    batchSize: 2,
    gradientAccumulation: 1,
    maxLength: 24,
    gradientCheckpointing: true,
    steps: 6,
    ...more,
  };
}

const losses = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" || event.type === "eval" ? [event.loss] : []));

/** Runs training; returns its losses, its events and the peak memory of the GPU. */
async function measure(
  given: FinetuneOptions,
): Promise<{ losses: number[]; peak: number; events: TrainEvent[] }> {
  session().restartPeak("gpu");
  const before = memory("gpu");
  const run = finetune(given);
  const events = await collect(run);
  await run.result;
  return { losses: losses(events), peak: memory("gpu").peak - before.reserved, events };
}

/** Settings of every family, and of storages and adapters that read the weights differently. */
const VARIED = [
  "rows one by one",
  "weights in q8_0",
  "DoRA",
  "packed rows",
  "the head trained whole",
  "Qwen3 in f16 and q4_0",
  "Gemma 3",
  "Phi-3, checkpointed",
  "GPT-2",
  "a classifier",
  "speech",
  "a GGUF file in q4_0",
];
/** Options of a run; the bytes of a weight, compared with f32; whether weights stay in their file. */
const WAYS: Record<string, [more: Partial<FinetuneOptions>, share: number, inFile: boolean]> = {
  "in f32": [{}, 1, true],
  "without gradient checkpointing": [{ gradientCheckpointing: false }, 1, true],
  "from a file in bf16": [{ model: await makeModel("bf16") }, 1 / 2, true],
  "converted to bf16": [{ dtype: "bf16" }, 1 / 2, false],
  "in nf4": [{ quantize: "nf4" }, 4.13 / 32, false],
};

for (const device of testDevices().filter((one) => one !== "cpu")) {
  for (const [name, [way, share, isInFile]] of Object.entries(WAYS)) {
    test.serial(
      `${device}: six steps with an evaluation, ${name}: equal losses in less memory`,
      async (t) => {
        const more = { ...way, evalSplit: 0.25, evalEvery: 3 };
        const [held, offloaded] = [options(more), options({ ...more, offloadWeights: true })];
        const [whole, told] = [await measure(held), await estimate(offloaded)];
        const run = await measure(offloaded);
        t.deepEqual(run.losses, whole.losses);
        t.is(run.losses.length, 9);
        t.true(adapterBytes(offloaded.output).equals(adapterBytes(held.output)));

        const off = told.peakBytes / run.peak - 1;
        t.log(`peak ${whole.peak} without, ${run.peak} with; estimated ${told.peakBytes} (${100 * off}%)`);
        t.true(Math.abs(off) <= WITHIN, `estimated ${told.peakBytes}, measured ${run.peak}`);
        const blocks = BLOCKS * BLOCK_BYTES * share;
        const saved = (whole.peak - run.peak) / ((blocks * (BLOCKS - 2)) / BLOCKS);
        // Without offloading, the pool may also keep a buffer of a conversion.
        t.true(saved > 0.9 && saved < 1.2, `saved ${saved} of the weights of all but two blocks`);
        const { inFile = 0, inMemory = 0 } = told.offloaded ?? {};
        t.is(isInFile ? inMemory : inFile, 0);
        t.true(Math.abs((inFile + inMemory) / blocks - 1) < 0.01, JSON.stringify(told.offloaded));
        const { weights, adapters, optimizer, activations } = told;
        t.is(weights + adapters + optimizer + activations, told.peakBytes);
        t.true(weights > blocks / 4 && weights < blocks / 4 + 4 * 99 * HIDDEN + 20_000, `weights ${weights}`);
        const start = run.events.find((event) => event.type === "start") as StartEvent;
        t.deepEqual(start.memory?.offloaded, told.offloaded);
        const memory = told.peakBytes;
        t.true((await estimate({ ...offloaded, memory })).fits);
        t.false((await estimate({ ...held, memory })).fits);
      },
    );
  }

  test.serial(
    `${device}: a run continues with offloaded weights, and without, with the same bits`,
    async (t) => {
      const whole = options({ offloadWeights: true, saveEvery: 2, keep: 9 });
      const all = losses(await collect(finetune(whole)));
      const from = join(whole.output, "checkpoint-2");
      for (const offloadWeights of [undefined, false]) {
        const output = join(temporary(), "resumed");
        const given = { resume: from, output, device, ...(offloadWeights === false && { offloadWeights }) };
        const events = await collect(finetune(given));
        t.deepEqual(losses(events), all.slice(2));
        t.true(adapterBytes(output).equals(adapterBytes(whole.output)));
        const start = events.find((event) => event.type === "start") as StartEvent;
        t.is(start.memory?.offloaded === undefined, offloadWeights === false);
      }
    },
  );

  test.serial(`${device}: two ranks offload their weights, with the losses of one process`, async (t) => {
    const alone = losses(await collect(finetune(options())));
    const runs = await runOnRanks(2, options({ offloadWeights: true }));
    for (const { events, error } of runs) {
      t.is(error, undefined);
      for (const [i, loss] of losses(events).entries())
        t.true(Math.abs(loss - alone[i]!) <= 1e-6 * Math.max(1, alone[i]!), `${i}: ${loss} ${alone[i]}`);
    }
    t.deepEqual(losses(runs[0]!.events), losses(runs[1]!.events));
  });

  test.serial(`${device}: the commands print the weights on the host`, async (t) => {
    const args = ["--model", model, "--data", data, "--device", device, "--offload-weights"];
    const told = await runHere("estimate", ...args);
    t.regex(told.stdout, /^ {2}offloaded +[0-9.]+ MiB in their file on the host$/m);
    const more = ["--steps", "1", "--quantize", "nf4", "--output", join(temporary(), "out")];
    const run = await runHere("finetune", ...args, ...more);
    t.is(run.status, 0, run.stderr);
    t.regex(run.stderr + run.stdout, /activations [0-9.]+ [KM]iB; [0-9.]+ KiB in memory on the host$/m);
  });

  for (const setting of SETTINGS.filter(({ name }) => VARIED.includes(name))) {
    test.serial(
      `${device}, ${setting.name}: equal losses, and the peak is estimated within 2%`,
      async (t) => {
        const given = await runOf(setting, device);
        const whole = await measure({ ...given, output: join(temporary(), "whole") });
        const offloaded = { ...given, offloadWeights: true };
        const [told, run] = [await estimate(offloaded), await measure(offloaded)];
        t.deepEqual(run.losses, whole.losses);
        const off = told.peakBytes / run.peak - 1;
        t.log(`peak ${whole.peak} without, ${run.peak} with; estimated ${told.peakBytes} (${100 * off}%)`);
        t.true(Math.abs(off) <= WITHIN, `estimated ${told.peakBytes}, measured ${run.peak}`);
        t.true(told.offloaded !== undefined && told.offloaded.inFile + told.offloaded.inMemory > 0);
      },
    );
  }
}

test.serial("offloading has no effect on the cpu, and is refused where it cannot save memory", async (t) => {
  const events = await collect(finetune(options({ device: "cpu", steps: 1, offloadWeights: true })));
  const warnings = events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
  t.true(warnings.some((message) => /offloadWeights.* has no effect: the run is on the cpu/.test(message)));
  const start = events.find((event) => event.type === "start") as StartEvent;
  t.is(start.memory?.offloaded, undefined);

  const loaded = LlamaForCausalLM.fromConfig(
    { vocab_size: 8, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1 },
    { device: "cpu" },
  );
  const refused = async (more: Partial<FinetuneOptions>, message: RegExp): Promise<void> => {
    const given = options({ device: "cpu", offloadWeights: true, ...more });
    await t.throwsAsync(finetune(given).result, { code: "ERR_OPTION", message });
  };
  await refused({ model: loaded }, /offloadWeights.*with a model that is loaded/);
  const pissa = { r: 2, initLoraWeights: "pissa" } as const;
  await refused({ lora: pissa }, /offloadWeights.*pissa.*choose another start, or leave offloadWeights out/);
  const without = options({ device: "cpu", steps: 1, lora: pissa });
  await t.notThrowsAsync(finetune(without).result);
  loaded.dispose();
});
