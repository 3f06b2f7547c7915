/** A Trainer's knowledge of its checkpoints when it resumes, and the figures that it keeps. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import {
  LowrankError,
  manualSeed,
  nn,
  noGrad,
  optim,
  tensor,
  Trainer,
  type Tensor,
  type TrainerEvent,
  type TrainerOptions,
} from "../../src/index.js";
import { temporary } from "../hashed.js";
import { collect } from "./quick.js";

interface Batch {
  x: Tensor;
  y: Tensor;
}

const rows = [1, 2, 3, 4, 5, 6].map((n) => ({ x: tensor([[n / 6]]), y: tensor([[n / 3 + 1]]) }));
const loss = (net: nn.Linear, { x, y }: Batch): Tensor => nn.mseLoss(net.forward(x), y);

function begin(more: Partial<TrainerOptions<nn.Linear, Batch>>): Trainer<nn.Linear, Batch> {
  manualSeed(4);
  const model = more.model ?? new nn.Linear(1, 1);
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.01 });
  return new Trainer({ model, optimizer, loss, data: () => rows, saveEvery: 1, ...more });
}

const marks = (folder: string): Record<string, unknown> =>
  Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => [
        name,
        (JSON.parse(readFileSync(join(folder, name, "trainer.json"), "utf8")) as { good?: unknown }).good,
      ]),
  );

/** Returns a schedule whose rate at one step makes the loss not finite. */
const ruinedAt =
  (step: number) =>
  (done: number): number =>
    done + 1 === step ? 1e30 : 1;

const isOption = { instanceOf: LowrankError, code: "ERR_OPTION" };

test.serial(
  "checkpoints store whether they are good, and resume: true continues from the last good one",
  async (t) => {
    const output = temporary();
    const failure = await t.throwsAsync(begin({ output, keep: 1, steps: 8, schedule: ruinedAt(4) }).result, {
      code: "ERR_NOT_FINITE",
    });
    t.regex(failure?.message ?? "", /the last good checkpoint is \S+checkpoint-3;/);
    t.deepEqual(marks(output), { "checkpoint-3": true, "checkpoint-4": false });
    const events = await collect<TrainerEvent>(begin({ output, keep: 1, resume: true, steps: 8 }));
    t.like(events[0], { type: "start", resumedFrom: 3 });
    t.deepEqual(
      events.flatMap((event) => (event.type === "warning" ? [event.message] : [])),
      [
        `resume: training had diverged at ${join(output, "checkpoint-4")}; the run continues from ${join(output, "checkpoint-3")}, the last good checkpoint`,
      ],
    );
    t.deepEqual(marks(output), { "checkpoint-7": true, "checkpoint-8": undefined });
  },
);

test.serial("a bad checkpoint is accepted when named, with a warning", async (t) => {
  const output = temporary();
  await t.throwsAsync(begin({ output, steps: 8, schedule: ruinedAt(4) }).result);
  const folder = join(output, "checkpoint-4");
  const told: string[] = [];
  const reading = async (): Promise<void> => {
    for await (const event of begin({ resume: folder, steps: 8 }))
      if (event.type === "warning") told.push(event.message);
  };
  await t.throwsAsync(reading(), { code: "ERR_NOT_FINITE" });
  t.deepEqual(told, [`resume: training had diverged at ${folder}`]);
});

test.serial("a folder without a good checkpoint is refused before the model is changed", async (t) => {
  const output = temporary();
  await t.throwsAsync(begin({ output, steps: 8, schedule: ruinedAt(1) }).result);
  t.deepEqual(marks(output), { "checkpoint-1": false });
  await t.throwsAsync(begin({ output, resume: true }).result, {
    code: "ERR_NOT_FINITE",
    message: /none is good; start a new run with a lower learning rate/,
  });
});

test.serial("with keep: 1 a resumed run keeps the last good checkpoint", async (t) => {
  const output = temporary();
  await begin({ output, keep: 1, steps: 3 }).result;
  t.deepEqual(marks(output), { "checkpoint-2": true, "checkpoint-3": undefined });
  // The update of step 5 ruins the weights, which the next step detects.
  const on = begin({ output, keep: 1, steps: 8, resume: true, schedule: ruinedAt(5) });
  const failure = await t.throwsAsync(on.result, { code: "ERR_NOT_FINITE" });
  t.regex(failure?.message ?? "", /checkpoint-4;/);
  t.deepEqual(marks(output), { "checkpoint-4": true, "checkpoint-5": false });
});

test.serial(
  "a run that resumes from another folder's checkpoint does not mark that checkpoint",
  async (t) => {
    const [first, second] = [temporary(), temporary()];
    await begin({ output: first, steps: 2, saveEvery: "never" }).result;
    await begin({ output: second, steps: 4, resume: join(first, "checkpoint-2") }).result;
    t.deepEqual(marks(first), { "checkpoint-2": undefined });
  },
);

test.serial("a model whose units die is reported, with its checkpoints", async (t) => {
  /** A layer whose unit outputs 0 for every row once the bias is very negative. */
  class Unit extends nn.Module {
    inner = new nn.Linear(1, 1);
    forward(x: Tensor): Tensor {
      return this.inner.forward(x).relu();
    }
  }
  const output = temporary();
  manualSeed(1);
  const model = new Unit();
  noGrad(() => {
    model.inner.weight.copy(tensor([[1]]));
    (model.inner.bias as Tensor).copy(tensor([1]));
  });
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.01 });
  const data = [1, 2, 3, 4, 5, 6].map((n) => ({ x: tensor([[n / 6]]), y: tensor([[1]]) }));
  const options = {
    model,
    optimizer,
    data: () => data,
    loss: (net: Unit, { x, y }: Batch): Tensor => nn.mseLoss(net.forward(x), y),
  };
  // The third step moves the weights so far that the unit is off afterwards, and its loss is 1.
  const schedule = (done: number): number => (done === 2 ? 1e6 : 1);
  const events = await collect<TrainerEvent>(
    new Trainer({ ...options, output, steps: 9, saveEvery: 1, keep: 1, schedule }),
  );
  const told = events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
  t.is(told.length, 1, told.join("\n"));
  t.regex(
    told[0] ?? "",
    /^step 6: training has diverged: the gradient is 0, so that nothing is learned any more, and the loss is 1\.00; it was 0\.\d\d before training; lower the learning rate .*; the last good checkpoint is \S+checkpoint-2$/,
  );
  t.deepEqual(marks(output), { "checkpoint-2": true, "checkpoint-9": false });
});

test.serial("a run that is to end before its checkpoint is refused, and changes nothing", async (t) => {
  const output = temporary();
  await begin({ output, epochs: 2 }).result;
  const model = new nn.Linear(1, 1);
  const before = [...(await model.weight.data())];
  const refused = async (more: Partial<TrainerOptions<nn.Linear, Batch>>, message: RegExp): Promise<void> => {
    const trainer = begin({ model, resume: join(output, "checkpoint-12"), ...more });
    await t.throwsAsync(trainer.result, { ...isOption, message });
    t.deepEqual([...(await model.weight.data())], before);
  };
  await refused(
    { steps: 5 },
    /checkpoint-12 is after step 12, and steps is 5; give more steps, or resume from/,
  );
  const beyond = /checkpoint-12 is after step 12, in epoch 2, and epochs is 1; give more epochs/;
  await refused({ epochs: 1, data: rows }, beyond);
  await refused({ epochs: 1 }, beyond);
  await refused(
    { gradientAccumulation: 2, steps: 20 },
    /was made with 1: its position in the data would not match/,
  );
  // With as many steps as completed nothing is left to do; with more the run continues, as the message says.
  t.is((await begin({ resume: join(output, "checkpoint-12"), steps: 12 }).result).steps, 12);
  t.is((await begin({ resume: join(output, "checkpoint-12"), epochs: 2 }).result).steps, 12);
  t.is((await begin({ resume: join(output, "checkpoint-12"), epochs: 3 }).result).steps, 18);
  t.is((await begin({ resume: join(output, "checkpoint-5"), steps: 7 }).result).steps, 7);
});

test.serial("history and result have the same figures as the events", async (t) => {
  const output = temporary();
  const trainer = begin({
    output,
    steps: 6,
    evalEvery: 3,
    evalData: rows,
    loss: (net, batch) => {
      const found = loss(net, batch);
      return { loss: found, metrics: { double: found.detach().mul(2) } };
    },
  });
  t.deepEqual(trainer.history, { steps: [], evaluations: [] });
  const events = await collect<TrainerEvent>(trainer);
  const { steps, evaluations } = trainer.history;
  t.deepEqual(
    steps,
    events.flatMap((event) => {
      if (event.type !== "step") return [];
      const { step, loss: value, learningRate, gradNorm, metrics } = event;
      return [{ step, loss: value, learningRate, gradNorm, metrics }];
    }),
  );
  t.deepEqual(
    evaluations,
    events.flatMap((event) =>
      event.type === "eval" ? [{ step: event.step, loss: event.loss, metrics: event.metrics }] : [],
    ),
  );
  t.deepEqual([steps.length, evaluations.map(({ step }) => step)], [6, [0, 3, 6]]);
  const result = await trainer.result;
  t.deepEqual(result.metrics, steps.at(-1)?.metrics);
  t.deepEqual(result.evalMetrics, evaluations.at(-1)?.metrics);
  t.true(Math.abs((result.metrics?.["double"] ?? 0) - 2 * (result.loss ?? 1)) < 1e-6);
  // Without metrics the result has none.
  const plain = await begin({ output: temporary(), steps: 1 }).result;
  t.deepEqual(Object.keys(plain).sort(), ["evalLoss", "loss", "steps", "stopped"]);
});

test.serial("history has the steps of a run without a reader, thinned out when there are many", async (t) => {
  const trainer = begin({ steps: 10_003 });
  await trainer.result;
  const { steps } = trainer.history;
  t.is(steps.length, 5_002);
  t.deepEqual([steps[0]?.step, steps[1]?.step, steps.at(-1)?.step], [1, 3, 10_003]);
});

test.serial('a misspelled "all" or "adapter" is no folder; a folder that exists is one', async (t) => {
  const here = process.cwd();
  const folder = temporary();
  process.chdir(folder);
  t.teardown(() => process.chdir(here));
  for (const [save, meant] of [
    ["adpater", "adapter"],
    ["Adapter", "adapter"],
    ["adapters", "adapter"],
    ["ALL", "all"],
  ] as const) {
    await t.throwsAsync(begin({ save, steps: 1 }).result, {
      ...isOption,
      message: `Trainer: save "${save}" is neither "all" nor "adapter" (did you mean "${meant}"?); for a folder of that name give output: "${save}"`,
    });
    t.deepEqual(readdirSync(folder), []);
  }
  // The remedy that the message recommends.
  await begin({ output: "adpater", steps: 1 }).result;
  t.deepEqual(readdirSync("adpater"), ["checkpoint-1"]);
  await begin({ save: "adpater", steps: 2 }).result;
  t.deepEqual(readdirSync("adpater"), ["checkpoint-1", "checkpoint-2"]);
  await begin({ save: "runs", steps: 1 }).result;
  t.deepEqual(readdirSync("runs"), ["checkpoint-1"]);
});
