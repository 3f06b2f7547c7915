/** A Trainer's checkpoints, the tensors that it releases, and the options that it refuses. */
import { readdirSync, writeFileSync } from "node:fs";
import { join, sep } from "node:path";
import { setTimeout as after } from "node:timers/promises";

import test from "ava";
import {
  LowrankError,
  lora,
  manualSeed,
  memory,
  nn,
  optim,
  rand,
  tensor,
  Trainer,
  zeros,
  type ErrorCode,
  type Tensor,
  type TrainerOptions,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices, type TestDevice } from "../devices.js";
import { temporary } from "../hashed.js";
import { collect } from "./quick.js";

interface Batch {
  x: Tensor;
  y: Tensor;
}

/** Returns a model with dropout, which draws random numbers, and with buffers. */
function build(device: TestDevice): nn.Sequential {
  manualSeed(7);
  return new nn.Sequential(
    new nn.Linear(3, 8, { device }),
    new nn.BatchNorm1d(8, { device }),
    new nn.Dropout(0.3),
    new nn.Linear(8, 1, { device }),
  );
}

const loss = (model: nn.Sequential, { x, y }: Batch): Tensor => nn.mseLoss(model.forward(x), y);

/** Returns five batches an epoch, with random order and values. */
const dataOn = (device: TestDevice) =>
  async function* (): AsyncGenerator<Batch> {
    const offset = await rand([1, 3])
      .item()
      .catch(() => rand([1]).item());
    for (let i = 0; i < 5; i++) {
      const x = rand([4, 3], { device }).add(offset + i);
      yield { x, y: x.sum(1, { keepDim: true }) };
    }
  };

/** Returns a promise `opened` that resolves when `open` is called. */
function gate(): { open: () => void; opened: Promise<void> } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { open, opened };
}

async function bits(model: nn.Module): Promise<number[]> {
  const all = await Promise.all(Object.values(model.stateDict()).map(async (one) => [...(await one.data())]));
  return all.flat();
}

for (const device of testDevices()) {
  test.serial(
    `on ${device} a stopped run resumes to the same bits, from any of its checkpoints`,
    async (t) => {
      const run = (save: string, more: Partial<TrainerOptions<nn.Sequential, Batch>>) => {
        const model = build(device);
        const optimizer = new optim.AdamW(model.parameters(), { lr: 0.05 });
        const schedule = optim.schedule.linear({ warmup: 2, total: 8 });
        const data = dataOn(device);
        const options = { model, optimizer, loss, data, schedule, gradientAccumulation: 2, steps: 8, save };
        return { model, trainer: new Trainer({ ...options, saveEvery: 2, ...more }) };
      };
      const [whole, folder] = [temporary(), temporary()];
      const straight = run(whole, {});
      const events = await collect(straight.trainer);
      t.deepEqual(
        events.filter((event) => event.type === "checkpoint").map(({ step }) => step),
        [2, 4, 6, 8],
      );
      t.like(events[0], {
        type: "start",
        model: "Sequential",
        steps: 8,
        stepsPerEpoch: null,
        resumedFrom: 0,
      });
      t.false(
        Object.keys(events[0] as object).some((key) => ["rank", "alpha", "targets", "adapted"].includes(key)),
      );
      const losses = events.filter((event) => event.type === "step").map((event) => event.loss);

      const cut = run(folder, {});
      for await (const event of cut.trainer)
        if (event.type === "step" && event.step === 3) void cut.trainer.stop();
      const { stopped, steps } = await cut.trainer.result;
      t.true(stopped && steps < 8);
      const on = run(folder, { resume: true });
      const rest = await collect(on.trainer);
      t.like(rest[0], { resumedFrom: steps });
      t.deepEqual(
        rest.filter((event) => event.type === "step").map((event) => event.loss),
        losses.slice(steps),
      );
      t.deepEqual(await bits(on.model), await bits(straight.model));

      // In the second epoch, and in the middle of one.
      const from = run(temporary(), { resume: join(whole, "checkpoint-4") });
      await from.trainer.result;
      t.deepEqual(await bits(from.model), await bits(straight.model));
      t.true(readdirSync(whole).every((name) => /^checkpoint-\d$/.test(name)));
    },
  );

  test.serial(
    `on ${device} tensors from the data function are released once used, and nothing else`,
    async (t) => {
      const model = new nn.Linear(64, 1, { device });
      const optimizer = new optim.SGD(model.parameters(), { lr: 1e-3 });
      const shared = zeros([32, 1], { device });
      let [most, made] = [0, [] as Tensor[]];
      const before = (await atRest(device)).tensors;
      function* data(): Generator<Batch> {
        for (let i = 0; i < 30; i++) {
          most = Math.max(most, memory(device).tensors - before);
          const x = rand([32, 64], { device });
          made.push(x);
          yield { x, y: shared };
        }
      }
      const step = (linear: nn.Linear, { x, y }: Batch): Tensor => nn.mseLoss(linear.forward(x), y);
      await new Trainer({ model, optimizer, loss: step, data, evalData: data, gradientAccumulation: 2 })
        .result;
      t.true(made.every(({ disposed }) => disposed));
      t.false(shared.disposed);
      t.true(most < 20, `${most} tensors`);

      made = [];
      await new Trainer({ model, optimizer, loss: step, data, release: false }).result;
      t.false(made.some(({ disposed }) => disposed));
      const array = [...data()];
      await new Trainer({ model, optimizer, loss: step, data: array, epochs: 2 }).result;
      t.false(array.some(({ x }) => x.disposed));

      // A batch that is yielded twice has been released before the second step.
      const again = function* (): Generator<Batch> {
        const x = rand([32, 64], { device });
        for (let i = 0; i < 3; i++) yield { x, y: shared };
      };
      const error = await t.throwsAsync(new Trainer({ model, optimizer, loss: step, data: again }).result, {
        instanceOf: LowrankError,
        message: /gave a tensor of shape \[32, 64\] that was released .* release: false/,
      });
      t.is((error as LowrankError).code, "ERR_DISPOSED");
    },
  );
}

test.serial(
  "stop() and an abort do not wait for data that never comes, and `await using` ends a run",
  async (t) => {
    const model = new nn.Linear(1, 1, { device: "cpu" });
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const batch = { x: zeros([1, 1], { device: "cpu" }), y: zeros([1, 1], { device: "cpu" }) };
    let stepping = gate();
    const one = (linear: nn.Linear, { x, y }: Batch): Tensor => {
      stepping.open();
      return nn.mseLoss(linear.forward(x), y);
    };
    /** Resolves when the first step has begun and the run presumably waits for the second batch. */
    const waits = async (): Promise<void> => {
      await stepping.opened;
      stepping = gate();
      await after(50);
    };
    const data = async function* (): AsyncGenerator<Batch> {
      yield batch;
      await new Promise(() => {});
    };
    const options = { model, optimizer, loss: one, data, release: false };
    {
      await using trainer = new Trainer(options);
      for await (const event of trainer) if (event.type === "start") break;
    }
    stepping = gate();
    const stopped = new Trainer(options);
    await waits();
    void stopped.stop();
    t.like(await stopped.result, { steps: 1, stopped: true });
    const controller = new AbortController();
    const aborted = new Trainer({ ...options, signal: controller.signal });
    const reason = new Error("enough");
    await waits();
    controller.abort(reason);
    t.is(await t.throwsAsync(aborted.result), reason);
  },
);

test.serial("a batch that arrives after a stop or an abort is released", async (t) => {
  for (const how of ["stop", "abort"]) {
    const model = new nn.Linear(1, 1, { device: "cpu" });
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const one = (linear: nn.Linear, { x, y }: Batch): Tensor => nn.mseLoss(linear.forward(x), y);
    const { open, opened } = gate();
    const made: Tensor[] = [];
    const data = async function* (): AsyncGenerator<Batch> {
      for (;;) {
        if (made.length > 0) {
          if (how === "stop") void trainer.stop();
          else controller.abort();
          await opened;
        }
        const x = zeros([1, 1], { device: "cpu" });
        made.push(x);
        yield { x, y: x };
      }
    };
    const controller = new AbortController();
    const trainer: Trainer<nn.Linear, Batch> = new Trainer({
      model,
      optimizer,
      loss: one,
      data,
      signal: controller.signal,
    });
    await trainer.result.catch(() => {});
    t.is(made.length, 1, how);
    open();
    await after(10);
    t.is(made.length, 2, how);
    t.true(made[1]?.disposed, how);
  }
});

// The second batch of a step, and the first of an epoch.
for (const late of [5, 6]) {
  test.serial(
    `a run that was stopped while it waited for batch ${late} resumes to the same bits`,
    async (t) => {
      const run = (
        more: Partial<TrainerOptions<nn.Sequential, Batch>>,
        waits: (n: number) => Promise<void> = async () => {},
        drawn: (n: number) => void = () => {},
      ) => {
        const model = build("cpu");
        const optimizer = new optim.AdamW(model.parameters(), { lr: 0.05 });
        let n = 0;
        const data = async function* (): AsyncGenerator<Batch> {
          const offset = rand([1, 3], { device: "cpu" });
          for (let i = 0; i < 6; i++, n++) {
            const x = rand([4, 3], { device: "cpu" }).add(offset);
            await waits(n);
            // These random numbers are drawn after the run has stopped waiting.
            const shifted = x.add(rand([4, 3], { device: "cpu" }));
            drawn(n);
            yield { x: shifted, y: shifted.sum(1, { keepDim: true }) };
          }
        };
        return {
          model,
          trainer: new Trainer({ model, optimizer, loss, data, gradientAccumulation: 2, steps: 8, ...more }),
        };
      };
      const losses = async (trainer: Trainer<nn.Sequential, Batch>) =>
        (await collect(trainer)).filter((event) => event.type === "step").map((event) => event.loss);
      const straight = run({});
      const expected = await losses(straight.trainer);
      const folder = join(temporary(), "checkpoint");
      const batch = gate();
      const drawing = gate();
      // The batch arrives before the checkpoint is written; later it would draw from the next run's random stream.
      const save = async (_: number, write: (to: string) => Promise<void>): Promise<string> => {
        batch.open();
        await drawing.opened;
        await write(folder);
        return folder;
      };
      const cut = run(
        { save },
        async (n) => {
          if (n !== late) return;
          void cut.trainer.stop();
          await batch.opened;
        },
        (n) => n === late && drawing.open(),
      );
      const { steps } = await cut.trainer.result;
      t.is(steps, late >> 1);
      const on = run({ resume: folder });
      t.deepEqual(await losses(on.trainer), expected.slice(steps));
      t.deepEqual(await bits(on.model), await bits(straight.model));
    },
  );
}

test.serial("resume: true uses the most recently written checkpoint, not the furthest", async (t) => {
  const save = temporary();
  const run = (more: Partial<TrainerOptions<nn.Linear, Batch>>) => {
    const model = new nn.Linear(1, 1, { device: "cpu" });
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const data = [{ x: tensor([[1]], { device: "cpu" }), y: tensor([[1]], { device: "cpu" }) }];
    const one = (linear: nn.Linear, { x, y }: Batch): Tensor => nn.mseLoss(linear.forward(x), y);
    return new Trainer({ model, optimizer, data, loss: one, save, saveEvery: 2, ...more });
  };
  await run({ steps: 6 }).result;
  // File times are only as precise as the kernel's tick, 10 ms at most.
  await after(20);
  await run({ steps: 2 }).result;
  const [start] = await collect(run({ steps: 8, resume: true }));
  t.like(start, { type: "start", resumedFrom: 2 });
});

test.serial("a custom save function may return a folder with a trailing separator", async (t) => {
  const folder = temporary();
  const model = new nn.Linear(1, 1, { device: "cpu" });
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
  const data = [{ x: tensor([[1]], { device: "cpu" }), y: tensor([[1]], { device: "cpu" }) }];
  const one = (linear: nn.Linear, { x, y }: Batch): Tensor => nn.mseLoss(linear.forward(x), y);
  const path = join(folder, "mine") + sep;
  const save = async (_: number, write: (to: string) => Promise<void>): Promise<string> => (
    await write(path),
    path
  );
  await new Trainer({ model, optimizer, data, loss: one, save, saveEvery: 1, steps: 2 }).result;
  t.deepEqual(readdirSync(folder), ["mine"]);
  t.deepEqual(readdirSync(path).sort(), ["model.safetensors", "optimizer.safetensors", "trainer.json"]);
});

test.serial("LoRA-FA resumes with the checkpoint's A, whatever A was before", async (t) => {
  const run = async (seed: number, more: Partial<TrainerOptions<nn.Sequential, Batch>>) => {
    manualSeed(seed);
    const model = new nn.Sequential(
      new nn.Linear(3, 8, { device: "cpu" }),
      new nn.Linear(8, 1, { device: "cpu" }),
    );
    await lora.inject(model, { r: 2, targetModules: ["0", "1"] });
    const optimizer = await optim.LoraFA.of(model, { lr: 0.05 });
    const x = tensor([0.5, -1, 2, 1, 0, -0.5], { shape: [2, 3], device: "cpu" });
    const data = [{ x, y: tensor([1, -1], { shape: [2, 1], device: "cpu" }) }];
    const trainer = new Trainer({ model, optimizer, loss, data, steps: 6, saveEvery: 2, ...more });
    await trainer.result;
    return bits(model);
  };
  const save = temporary();
  const straight = await run(7, { save });
  t.deepEqual(await run(8, { save: temporary(), resume: join(save, "checkpoint-4") }), straight);
});

const loose = (value: unknown): never => value as never;

const WRONG: [
  what: string,
  code: ErrorCode,
  message: RegExp,
  given: Partial<TrainerOptions<nn.Linear, Batch>>,
][] = [
  [
    "an asynchronous loss",
    "ERR_OPTION",
    /loss returned a promise/,
    { loss: loose(async () => Promise.resolve()) },
  ],
  [
    "a loss that is a number",
    "ERR_OPTION",
    /loss .*a function that returns a tensor, or \{ loss, metrics \}, got 3/,
    { loss: loose(() => 3) },
  ],
  [
    "a loss of several values",
    "ERR_SHAPE_MISMATCH",
    /loss returned a tensor of shape \[2\]/,
    { loss: () => zeros([2], { device: "cpu", requiresGrad: true }) },
  ],
  ["no loss", "ERR_OPTION", /loss must be a function, got undefined/, { loss: loose(undefined) }],
  ["no data", "ERR_OPTION", /data must be batches, got undefined/, { data: loose(undefined) }],
  ["an empty array", "ERR_OPTION", /the data has no batches/, { data: [] }],
  ["an empty generator", "ERR_OPTION", /the data has no batches/, { data: function* () {} }],
  ["empty held-out data", "ERR_OPTION", /the evalData has no batches/, { evalData: [] }],
  [
    "data that cannot be read",
    "ERR_OPTION",
    /data must be an array, an iterable, or a function/,
    { data: loose(3) },
  ],
  ["no model", "ERR_OPTION", /model must be a module, got an object/, { model: loose({}) }],
  [
    "no optimizer",
    "ERR_OPTION",
    /optimizer must be an optimizer.*, got undefined/,
    { optimizer: loose(undefined) },
  ],
  ["an unknown option", "ERR_OPTION", /there is no option batchSize/, loose({ batchSize: 3 })],
  ["steps and epochs", "ERR_OPTION", /one of steps and epochs/, { steps: 1, epochs: 1 }],
  [
    "an invalid weight",
    "ERR_OPTION",
    /weight must be a function that returns a number of at least 0, got NaN/,
    { weight: () => Number.NaN },
  ],
  [
    "a resume without an output folder",
    "ERR_OPTION",
    /resume: true continues from the newest/,
    { resume: true },
  ],
  [
    "an invalid save option",
    "ERR_OPTION",
    /save .*"all", "adapter", a folder, or a function that saves, got 3/,
    { save: loose(3) },
  ],
  [
    "a resume from a missing folder",
    "ERR_FILE_NOT_FOUND",
    /no such folder/,
    { resume: join(temporary(), "none") },
  ],
  ["an invalid signal", "ERR_OPTION", /signal must be an AbortSignal/, { signal: loose({}) }],
];

for (const [what, code, message, given] of WRONG) {
  test.serial(`refused: ${what}`, async (t) => {
    const model = new nn.Linear(1, 1, { device: "cpu" });
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const data = [{ x: tensor([[1]], { device: "cpu" }), y: tensor([[1]], { device: "cpu" }) }];
    const one = (linear: nn.Linear, { x, y }: Batch): Tensor => nn.mseLoss(linear.forward(x), y);
    const trainer = new Trainer({ model, optimizer, data, loss: one, ...given });
    const error = await t.throwsAsync(trainer.result, { instanceOf: LowrankError, message });
    t.is((error as LowrankError | undefined)?.code, code);
  });
}

test.serial("an unsuitable checkpoint is refused, and an unrelated folder is not changed", async (t) => {
  const folder = temporary();
  const run = (model: nn.Linear, more: Partial<TrainerOptions<nn.Linear, Batch>>) => {
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1, momentum: 0.9 });
    const { inFeatures: n } = model;
    const data = [{ x: zeros([2, n], { device: "cpu" }).add(1), y: zeros([2, 1], { device: "cpu" }) }];
    const one = (linear: nn.Linear, { x, y }: Batch): Tensor => nn.mseLoss(linear.forward(x), y);
    return new Trainer({ model, optimizer, data, loss: one, save: folder, ...more }).result;
  };
  await run(new nn.Linear(2, 1, { device: "cpu" }), {});
  const other = new nn.Linear(3, 1, { device: "cpu" });
  const before = await bits(other);
  const refused = async (more: Partial<TrainerOptions<nn.Linear, Batch>>, code: ErrorCode, model = other) => {
    const error = await t.throwsAsync(run(model, more), { instanceOf: LowrankError });
    t.is((error as LowrankError | undefined)?.code, code);
  };
  await refused({ resume: true }, "ERR_SHAPE_MISMATCH");
  await refused({ resume: true }, "ERR_UNMATCHED_KEY", new nn.Linear(2, 1, { device: "cpu", bias: false }));
  await refused(
    { resume: true, gradientAccumulation: 2 },
    "ERR_OPTION",
    new nn.Linear(2, 1, { device: "cpu" }),
  );
  t.deepEqual(await bits(other), before);
  writeFileSync(join(folder, "checkpoint-1", "trainer.json"), "{}");
  await refused({ resume: true }, "ERR_FILE_FORMAT");
  const mine = join(folder, "mine");
  await refused({ save: async (_, write) => (await write(folder), mine), saveEvery: 1 }, "ERR_WRITE");
  t.deepEqual(readdirSync(folder), ["checkpoint-1"]);
});
