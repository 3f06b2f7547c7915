/** Runs on several devices: the losses of one device, the same bits twice, and the same values everywhere. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  estimate,
  finetune,
  type FinetuneOptions,
  loadModel,
  memory,
  type Device,
  type StartEvent,
  synchronize,
  tensor,
  trim,
  type TrainEvent,
} from "../../src/index.js";
import { inject } from "../../src/lora/index.js";
import type { CausalLM } from "../../src/models/causal-lm.js";
import { session } from "../../src/native/binding.js";
import { AdamW } from "../../src/optim/index.js";
import { recordPart, recordUpdate } from "../../src/train/record.js";
import { Replica } from "../../src/optim/replica.js";
import { settleShares } from "../../src/train/replicas/devices.js";
import { apportion, computeShares, dealRows } from "../../src/train/replicas/shares.js";
import { atRest } from "../at-rest.js";
import { parseSettings } from "../../src/train/settings.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoderWithoutDropout } from "../tiny-encoder.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const both = ["cpu", "gpu"];
const options = (
  device: string | readonly string[],
  more: Partial<FinetuneOptions> = {},
): FinetuneOptions & { output: string } =>
  ({ ...quick(given, "cpu", more), device }) as FinetuneOptions & { output: string };

const losses = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event.loss] : []));
const norms = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event.gradNorm] : []));
const startOf = (events: TrainEvent[]): StartEvent =>
  events.find((event) => event.type === "start") as StartEvent;
const recorded = (output: string): Record<string, unknown> =>
  (JSON.parse(readFileSync(join(output, "run.json"), "utf8")) as { options: Record<string, unknown> })
    .options;

const CASES: Record<string, Partial<FinetuneOptions>> = {
  "micro-batches of one row": { batchSize: 1, gradientAccumulation: 5 },
  "shares of 3 to 1, and a short last step of an epoch": {
    deviceShares: [3, 1],
    batchSize: 3,
    gradientAccumulation: 3,
  },
  "packed rows": { packing: true, maxLength: 48, lora: { r: 2 } },
  "gradient checkpointing and LoRA+": {
    gradientCheckpointing: true,
    optimizer: { lr: 1e-2, loraPlusRatio: 4 },
  },
  "an initialisation that changes the base weights": { lora: { r: 4, initLoraWeights: "pissa" } },
  "labelled rows": { model: await tinyEncoderWithoutDropout(), data: rowsFile(seaAndLand(30)) },
};

if (testDevices().length > 1) {
  for (const [name, more] of Object.entries(CASES)) {
    test.serial(`two devices give the losses of one, and the same bits twice: ${name}`, async (t) => {
      const { deviceShares = [1, 1], ...same } = more;
      const alone = await collect(finetune(options("cpu", same)));
      const [first, second] = [1, 2].map(() => options(both, { ...same, deviceShares }));
      const [once, twice] = [await collect(finetune(first!)), await collect(finetune(second!))];
      t.is(losses(once).length, 12);
      t.deepEqual(losses(once), losses(twice));
      t.true(adapterBytes(first!.output).equals(adapterBytes(second!.output)));
      // Sums of f32 in another order.
      for (const [step, loss] of losses(once).entries())
        t.true(
          Math.abs(loss - losses(alone)[step]!) <= 1e-6 * Math.max(1, losses(alone)[step]!),
          `${step + 1}: ${loss} ${losses(alone)[step]}`,
        );
      for (const [step, norm] of norms(once).entries())
        t.true(
          Math.abs(norm - norms(alone)[step]!) <= 1e-4 * norms(alone)[step]!,
          `${step + 1}: ${norm} ${norms(alone)[step]}`,
        );
    });
  }

  test.serial("a GPU by its number is planned and trained, alone and with the cpu", async (t) => {
    const alone = losses(await collect(finetune(options("gpu:0"))));
    const divided = losses(await collect(finetune(options(["gpu:0", "cpu"], { deviceShares: [1, 1] }))));
    t.is(divided.length, 12);
    for (const [step, loss] of divided.entries())
      t.true(Math.abs(loss - (alone[step] ?? NaN)) <= 1e-6 * loss);
  });

  test.serial("an aborted run leaves its devices usable, and their memory as it was", async (t) => {
    const long = { batchSize: 1, gradientAccumulation: 16, steps: 40, deviceShares: [1, 1] };
    await finetune(options(both, { ...long, steps: 1 })).result;
    const rest = async (): Promise<number[]> =>
      Promise.all((both as Device[]).map(async (device) => (await atRest(device)).live));
    const before = await rest();
    for (let i = 0; i < 8; i++) {
      const controller = new AbortController();
      const run = finetune(options(both, { ...long, signal: controller.signal }));
      const reading = async (): Promise<void> => {
        for await (const event of run)
          if (event.type === "step") setTimeout(() => controller.abort(new Error("gone")), 11 * i);
      };
      await t.throwsAsync(reading, { message: "gone" });
      for (const device of both as Device[]) await t.notThrowsAsync(synchronize(device));
    }
    t.deepEqual(await rest(), before);
    t.is((await finetune(options(both, { ...long, steps: 1 })).result).steps, 1);
  });

  test.serial("a resumed run keeps the shares, and gives the bits of an uninterrupted one", async (t) => {
    const more = { deviceShares: [1, 3], lora: { r: 4, loraDropout: 0.2 }, saveEvery: 4, keep: 9 };
    const whole = options(both, more);
    await finetune(whole).result;
    const { device, deviceShares } = recorded(whole.output);
    t.deepEqual([device, deviceShares], [both, [1, 3]]);
    const output = join(temporary(), "resumed");
    const events = await collect(finetune({ resume: join(whole.output, "checkpoint-4"), output }));
    t.deepEqual(
      startOf(events).devices?.map(({ rows }) => rows),
      [1, 3],
    );
    t.true(adapterBytes(output).equals(adapterBytes(whole.output)));
  });

  test.serial("a run continues on other devices, with the losses of one device", async (t) => {
    const alone = options("cpu", { saveEvery: 6 });
    const expected = losses(await collect(finetune(alone)));
    const moved = join(temporary(), "moved");
    const resume = join(alone.output, "checkpoint-6");
    const events = await collect(
      finetune({ resume, output: moved, device: ["gpu", "cpu"], deviceShares: [1, 1] }),
    );
    for (const [i, loss] of losses(events).entries())
      t.true(Math.abs(loss - (expected[6 + i] as number)) <= 1e-6 * loss, `${loss} ${expected[6 + i]}`);
    t.is(losses(events).length, 6);
    // Back on one device, the shares of two are dropped.
    const back = join(temporary(), "back");
    await finetune({ resume: join(moved, "checkpoint-12"), output: back, device: "cpu", steps: 13 }).result;
    t.is(recorded(back)["deviceShares"], undefined);
  });

  test.serial("without given shares the devices are measured", async (t) => {
    const given = options(both, { gradientAccumulation: 64 });
    const settings = parseSettings(given);
    const { deviceShares } = await settleShares(settings, () => Promise.resolve([2e9, 1.1e9]));
    t.deepEqual(deviceShares, [8, 4]);
    await t.throwsAsync(
      settleShares(settings, () => Promise.resolve([1, 40])),
      {
        code: "ERR_OPTION",
        message:
          /^finetune: cpu would get none of the 128 rows of a step, because it is too slow beside the fastest; /,
      },
    );
    // A GPU in software may be too slow for any row.
    const measured = (await settleShares({ ...settings, devices: ["cpu", "cpu"] })).deviceShares ?? [];
    t.is(Math.max(...measured), 8);
    t.true(Math.min(...measured) >= 4, measured.join());
  });

  test.serial("after each update all devices hold the same values", async (t) => {
    const models: CausalLM[] = [];
    for (const device of both) {
      const model = (await loadModel(given.model, { device: device as Device })) as CausalLM;
      await inject(model, { r: 4 });
      models.push(model.train());
    }
    const [own = [], copies = []] = models.map((model) =>
      [...model.parameters()].filter((one) => one.requiresGrad),
    );
    const optimizer = new AdamW(own, { lr: 1e-2 });
    const replica = new Replica([copies]);
    t.teardown(() => {
      for (const one of [replica, optimizer, ...models]) one.dispose();
    });
    replica.copyValuesOf(optimizer);
    for (let step = 0; step < 3; step++) {
      for (const [i, model] of models.entries()) {
        const values = Int32Array.from({ length: 12 }, (_, at) => 5 + ((at * (i + 3) + step) % 40));
        const ids = tensor(values, { shape: [2, 6], device: model.device });
        recordPart(() => model.loss(ids, values), undefined).dispose();
      }
      recordUpdate(optimizer, 1, [replica]).dispose();
      for (const [i, one] of own.entries())
        t.deepEqual(await one.data(), await copies[i]?.data(), `step ${step}, parameter ${i}`);
    }
  });

  test.serial("estimate counts each device", async (t) => {
    const run = options(both, { deviceShares: [3, 1], gradientAccumulation: 4 });
    const told = await estimate(run);
    t.deepEqual([told.device, ...(told.further ?? []).map(({ device }) => device)], both);
    t.deepEqual([told.batch[0], told.further?.[0]?.batch[0]], [2, 2]);
    for (const device of both as Device[]) {
      await atRest(device);
      trim(device);
      session().restartPeak(device);
    }
    const events = await collect(finetune(run));
    for (const { peakBytes, device } of [told, ...(told.further ?? [])]) {
      const { peak } = memory(device as Device);
      t.true(Math.abs(peak - peakBytes) <= 0.02 * peakBytes, `${device}: ${peak}, estimated ${peakBytes}`);
    }
    t.is(startOf(events).memory?.further?.[0]?.device, "gpu");
  });

  test.serial("a memory limit applies to each device", async (t) => {
    const run = options(both, { deviceShares: [1, 1], memory: 100_000 });
    const error = await t.throwsAsync(finetune(run).result, { code: "ERR_OUT_OF_MEMORY" });
    t.regex(error?.message ?? "", /on cpu \(.*\) and .* on gpu \(/);
  });

  test.serial("a device that is named twice is refused", async (t) => {
    await t.throwsAsync(finetune(options(["gpu", "cpu", "gpu:0"])).result, {
      code: "ERR_OPTION",
      message: "device names one GPU twice: gpu is gpu:0; name each device once",
    });
    await t.throwsAsync(estimate(options(["gpu", "gpu"])), {
      code: "ERR_OPTION",
      message: "device names gpu twice; name each device once",
    });
    const missing = await t.throwsAsync(finetune(options(["cpu", "gpu:9"])).result);
    t.is((missing as { code?: string }).code, "ERR_NO_GPU");
  });

  test.serial("a device without rows is refused", async (t) => {
    const data = tinyData(3);
    const few = { data, deviceShares: [7, 1], gradientAccumulation: 4 };
    for (const refused of [finetune(options(both, few)).result, estimate(options(both, few))])
      await t.throwsAsync(refused, {
        code: "ERR_OPTION",
        message:
          /^finetune: gpu would get no row of any step, because the data has too few rows; leave it out/,
      });
    // What the errors recommend.
    const remedies: [string | string[], Partial<FinetuneOptions>][] = [
      [both, { ...few, deviceShares: [2, 1] }],
      ["cpu", { data }],
      [both, { batchSize: 1, gradientAccumulation: 2, deviceShares: [1, 1] }],
    ];
    for (const [device, remedy] of remedies)
      t.is((await finetune(options(device, { ...remedy, steps: 1 })).result).steps, 1);
    // Two rows are left for the last step of an epoch, which has none for the second device.
    const short = options(both, {
      data: tinyData(10),
      deviceShares: [3, 1],
      gradientAccumulation: 4,
      steps: 2,
    });
    t.is(losses(await collect(finetune(short))).length, 2);
    await t.throwsAsync(finetune(options(both, { deviceShares: [40, 1] })).result, {
      code: "ERR_OPTION",
      message: /^finetune: gpu would get none of the 4 rows of a step, because its share is too small; /,
    });
    await t.throwsAsync(finetune(options(both, { batchSize: 1, gradientAccumulation: 1 })).result, {
      code: "ERR_OPTION",
      message: /^finetune: the only row of a step cannot be divided among 2 devices; raise batchSize or /,
    });
  });
}

test("devices and shares that do not go together are refused before anything is read", async (t) => {
  const refusals: [Partial<FinetuneOptions>, RegExp][] = [
    [{ device: ["auto", "cpu"] }, /device names auto among several devices; name each as cpu, gpu or gpu:N/],
    [{ device: ["cpu", "meta:cpu"] }, /device names meta:cpu among several devices/],
    [{ device: [] }, /device must not be empty/],
    [{ device: ["cpu", 3] as never }, /device must be the name of a device, or names/],
    [{ deviceShares: [1, 1] }, /deviceShares has 2 shares, and device names one device/],
    [{ device: both, deviceShares: [1] }, /deviceShares has 1 shares, and device names 2 devices/],
    [{ device: both, deviceShares: [1, 0.5] }, /deviceShares must be whole numbers of at least 1/],
    [
      { device: both, lora: { initLoraWeights: "eva" } },
      /several devices \(device\) with initLoraWeights eva/,
    ],
  ];
  for (const [more, message] of refusals)
    await t.throwsAsync(finetune({ ...options("cpu"), data: "missing.jsonl", ...more }).result, {
      code: "ERR_OPTION",
      message,
    });
  const model = await loadModel(given.model, { device: "cpu" });
  t.teardown(() => model.dispose());
  await t.throwsAsync(finetune({ ...options(both), model: model as never }).result, {
    code: "ERR_OPTION",
    message: /each device loads the model; give the model's folder/,
  });
});

test("shares are the rates in eighths of the fastest", (t) => {
  t.deepEqual(computeShares([1e9, 0.97e9, 0.5e9, 0.01e9]), [8, 8, 4, 0]);
});

test("rows are dealt by shares, and spread evenly", (t) => {
  t.deepEqual(apportion(8, [8, 8, 4]), [3, 3, 2]);
  t.deepEqual(apportion(1, [1, 3]), [0, 1]);
  t.deepEqual(dealRows(8, [3, 1]), [0, 0, 1, 0, 0, 0, 1, 0]);
  for (let rows = 1; rows < 40; rows++)
    for (const shares of [[1], [1, 1], [8, 5], [8, 3, 1], [2, 7, 7, 1]]) {
      const dealt = dealRows(rows, shares);
      const counts = shares.map((_, device) => dealt.filter((one) => one === device).length);
      t.deepEqual(counts, apportion(rows, shares));
      // No device is more than one row behind its part of any beginning.
      for (let n = 1; n <= rows; n++)
        for (const [device, count] of counts.entries()) {
          const own = dealt.slice(0, n).filter((one) => one === device).length;
          t.true(Math.abs(own - (count * n) / rows) < 2, `${rows} ${shares.join()} ${n}`);
        }
    }
});
