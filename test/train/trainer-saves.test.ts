/** The contents and number of a Trainer's checkpoints, metrics of the loss, and refused optimizers. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import {
  loadModel,
  LowrankError,
  lora,
  manualSeed,
  nn,
  noGrad,
  ones,
  optim,
  rand,
  randn,
  safetensors,
  tensor,
  Trainer,
  zeros,
  type Tensor,
  type TrainerEvent,
  type TrainerOptions,
} from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { temporary, tinyModel } from "../hashed.js";
import { collect } from "./quick.js";

interface Batch {
  x: Tensor;
  y: Tensor;
}

/** A frozen base under an adapter, with running statistics and a moving average that forward updates. */
class Net extends nn.Module {
  body: nn.Sequential;
  head: nn.Linear;
  average: Tensor;
  constructor(device: TestDevice, seed: number) {
    super();
    manualSeed(seed);
    this.body = new nn.Sequential(
      new nn.Linear(3, 8, { device }),
      new nn.BatchNorm1d(8, { device }),
      new nn.Dropout(0.2),
    );
    this.head = new nn.Linear(8, 1, { device });
    this.average = zeros([1, 8], { device, requiresGrad: true });
  }
  forward(x: Tensor): Tensor {
    if (this.training)
      noGrad(() => this.average.copy(this.average.mul(0.9).add(this.head.weight.detach().mul(0.1))));
    return this.head.forward(this.body.forward(x));
  }
}

const loss = (net: Net, { x, y }: Batch): Tensor => nn.mseLoss(net.forward(x), y);

const dataOn = (device: TestDevice) =>
  function* (): Generator<Batch> {
    for (let i = 0; i < 4; i++) {
      const x = rand([4, 3], { device }).add(i);
      yield { x, y: x.sum(1, { keepDim: true }) };
    }
  };

async function bits(model: nn.Module): Promise<Record<string, number[]>> {
  const found: Record<string, number[]> = {};
  for (const [name, one] of Object.entries(model.stateDict())) found[name] = [...(await one.data())];
  return found;
}

/** Starts a run over an adapter; `seed` draws the base, and `later` the adapter and all later random numbers. */
async function begin(
  device: TestDevice,
  more: Partial<TrainerOptions<Net, Batch>>,
  { seed = 1, later = 2 } = {},
): Promise<{ model: Net; trainer: Trainer<Net, Batch> }> {
  const model = new Net(device, seed);
  manualSeed(later);
  await lora.inject(model, { r: 2, loraDropout: 0.1, targetModules: ["0", "head"] });
  const optimizer = new optim.AdamW(model.parameters({ trainable: true }), { lr: 0.05 });
  const options = { model, optimizer, loss, data: dataOn(device), steps: 8, saveEvery: 2, ...more };
  return { model, trainer: new Trainer(options) };
}

const isOption = { instanceOf: LowrankError, code: "ERR_OPTION" };

for (const device of testDevices()) {
  test.serial(`on ${device} checkpoints of the trained part resume to the same bits`, async (t) => {
    const output = temporary();
    const straight = await begin(device, { save: "adapter", output });
    await straight.trainer.result;
    const expected = await bits(straight.model);

    const folder = join(output, "checkpoint-4");
    t.deepEqual(readdirSync(folder).sort(), ["optimizer.safetensors", "trained.safetensors", "trainer.json"]);
    const stored = Object.keys(await safetensors.load(join(folder, "trained.safetensors"))).sort();
    t.deepEqual(
      stored,
      [
        // Not trained, and changed by forward.
        "average",
        "body.0.lora_A.default.weight",
        "body.0.lora_B.default.weight",
        "body.1.num_batches_tracked",
        "body.1.running_mean",
        "body.1.running_var",
        "head.lora_A.default.weight",
        "head.lora_B.default.weight",
      ].filter((name) => name in expected),
    );

    // The adapter was drawn with another seed, but all of it is in the checkpoint.
    const on = await begin(device, { save: "adapter", output: temporary(), resume: folder }, { later: 9 });
    await on.trainer.result;
    t.deepEqual(await bits(on.model), expected);

    // Resumes once more, from a checkpoint of the resumed run.
    const again = temporary();
    const cut = await begin(device, { save: "adapter", output: again, resume: folder, steps: 6 });
    await cut.trainer.result;
    const last = await begin(device, { save: "adapter", output: again, resume: true }, { later: 5 });
    await last.trainer.result;
    t.deepEqual(await bits(last.model), expected);
  });
}

test.serial("a checkpoint of the trained part refuses another base, and changes nothing", async (t) => {
  const output = temporary();
  await (
    await begin("cpu", { save: "adapter", output, steps: 2 })
  ).trainer.result;
  const refused = async (
    change: (model: Net) => void,
    code: string,
    message: RegExp,
    seeds = {},
  ): Promise<void> => {
    const model = new Net("cpu", 1);
    Object.assign(model, seeds);
    change(model);
    await lora.inject(model, { r: 2, targetModules: ["0", "head"] });
    const before = await bits(model);
    const optimizer = new optim.AdamW(model.parameters({ trainable: true }));
    const options = { model, optimizer, loss, data: dataOn("cpu"), save: "adapter", output, resume: true };
    await t.throwsAsync(new Trainer(options).result, { instanceOf: LowrankError, code, message });
    t.deepEqual(await bits(model), before);
  };
  const values =
    /body\.0\.weight has other values than in the run's model.*load the model that the run began/;
  await refused(
    (model) => noGrad(() => (model.body.layers[0] as nn.Linear).weight.copy(randn([8, 3]))),
    "ERR_OPTION",
    values,
  );
  await refused(
    (model) => {
      model.body.layers[0] = new nn.Linear(3, 8, { bias: false });
    },
    "ERR_UNMATCHED_KEY",
    /body\.0\.bias of the run's model is missing/,
  );
  await refused(
    (model) => {
      (model as unknown as { extra: nn.Linear }).extra = new nn.Linear(2, 2);
    },
    "ERR_UNMATCHED_KEY",
    /the run's model had no extra\.weight/,
  );
});

test.serial("a checkpoint of the trained part is not larger than that part", async (t) => {
  const sizes: Record<string, number> = {};
  for (const save of ["all", "adapter"] as const) {
    const model = new nn.Sequential(new nn.Linear(512, 1024), new nn.ReLU(), new nn.Linear(1024, 512));
    await lora.inject(model, { r: 1, targetModules: ["0"] });
    const optimizer = new optim.SGD(model.parameters({ trainable: true }), { lr: 0.1 });
    const output = temporary();
    const data = [randn([2, 512])];
    const one = (m: nn.Sequential, x: Tensor): Tensor => m.forward(x).mul(1e-3).mean();
    await new Trainer({ model, optimizer, data, loss: one, save, output }).result;
    const folder = join(output, "checkpoint-1");
    const files = readdirSync(folder).map((name) => statSync(join(folder, name)).size);
    sizes[save] = files.reduce((a, b) => a + b);
  }
  t.true((sizes["all"] as number) > 4e6);
  // A and B of one layer, 1,536 values, and a kilobyte for each of three files.
  t.true((sizes["adapter"] as number) < 4 * 1536 + 3 * 1024, String(sizes["adapter"]));
});

test.serial("an adapter over quantised weights is saved and resumed", async (t) => {
  const output = temporary();
  const run = async (more: object): Promise<Record<string, number[]>> => {
    const model = await loadModel(tinyModel(), { task: "causal-lm", device: "cpu", quantize: "nf4" });
    manualSeed(3);
    await lora.inject(model, { r: 2, targetModules: ["q_proj"] });
    const optimizer = new optim.AdamW(model.parameters({ trainable: true }), { lr: 0.01 });
    const ids = tensor(Int32Array.of(1, 2, 3, 4, 5, 6), { shape: [1, 6], device: "cpu" });
    const data = [ids, ids, ids, ids];
    await new Trainer({
      model,
      optimizer,
      data,
      loss: (m, x: Tensor) => m.loss(x, x),
      save: "adapter",
      output,
      saveEvery: 2,
      ...more,
    }).result;
    const found: Record<string, number[]> = {};
    for (const [name, one] of model.namedParameters({ trainable: true }))
      found[name] = [...(await one.data())];
    return found;
  };
  const expected = await run({});
  t.deepEqual(await run({ resume: join(output, "checkpoint-2") }), expected);
});

test.serial("keep leaves the newest checkpoints of the run, and all other files in the folder", async (t) => {
  const output = temporary();
  await (
    await begin("cpu", { output, steps: 4, saveEvery: 2 })
  ).trainer.result;
  mkdirSync(join(output, "checkpoint-99"));
  writeFileSync(join(output, "checkpoint-99", "notes.txt"), "mine");
  writeFileSync(join(output, "checkpoint-7"), "a file");
  const second = temporary();
  const { trainer } = await begin("cpu", { output: second, keep: 2, saveEvery: 1, steps: 5 });
  for await (const event of trainer)
    if (event.type === "checkpoint" && event.step === 2)
      writeFileSync(join(second, "checkpoint-2", "notes.txt"), "mine");
  t.deepEqual(readdirSync(second).sort(), ["checkpoint-2", "checkpoint-4", "checkpoint-5"]);
  t.deepEqual(readdirSync(join(second, "checkpoint-2")), ["notes.txt"]);

  // Another run in the same folder, and one that resumes it.
  const more = await begin("cpu", { output, keep: 1, saveEvery: 3, steps: 9 });
  await more.trainer.result;
  const names = ["checkpoint-2", "checkpoint-4", "checkpoint-7", "checkpoint-99"];
  // Step 7 has checked checkpoint-6; nothing follows checkpoint-9.
  t.deepEqual(readdirSync(output).sort(), [...names, "checkpoint-6", "checkpoint-9"].sort());
  const on = await begin("cpu", { output, keep: 1, resume: true, steps: 11, saveEvery: 1 });
  await on.trainer.result;
  t.deepEqual(readdirSync(output).sort(), [...names, "checkpoint-10", "checkpoint-11"].sort());
  t.is(readFileSync(join(output, "checkpoint-99", "notes.txt"), "utf8"), "mine");
});

test.serial("a run that diverges keeps and names its last good checkpoint", async (t) => {
  const output = temporary();
  const { trainer } = await begin("cpu", { output, keep: 1, saveEvery: 1, steps: 6, schedule: ruinedAt(3) });
  const failure = await t.throwsAsync(trainer.result, { code: "ERR_NOT_FINITE" });
  // The update of step 3 ruins the weights of checkpoint-3, which step 4 detects.
  t.regex(failure?.message ?? "", /^step 4: .*the last good checkpoint is \S+checkpoint-2;/);
  t.deepEqual(readdirSync(output).sort(), ["checkpoint-2", "checkpoint-3"]);
});

test.serial(
  "the checkpoint that a run resumes from stays until a newer one is known to be good",
  async (t) => {
    const output = temporary();
    const { trainer } = await begin("cpu", { output, keep: 1, steps: 2, saveEvery: "never" });
    await trainer.result;
    const resumed = { output, keep: 1, resume: true, steps: 8, saveEvery: 2 };
    const on = await begin("cpu", { ...resumed, schedule: ruinedAt(4) });
    // Step 4 ruins the weights of checkpoint-4, which step 5 detects.
    await t.throwsAsync(on.trainer.result, { code: "ERR_NOT_FINITE", message: /^step 5/ });
    t.deepEqual(readdirSync(output).sort(), ["checkpoint-2", "checkpoint-4"]);
  },
);

/** Returns a schedule whose rate at one step ruins any weights. */
function ruinedAt(step: number): (done: number) => number {
  return (done) => (done + 1 === step ? 1e30 : 1e-3);
}

test.serial("saveEvery takes a time, and refuses any other text", async (t) => {
  const output = temporary();
  await (
    await begin("cpu", { output, steps: 4, saveEvery: "10m" })
  ).trainer.result;
  t.deepEqual(readdirSync(output), ["checkpoint-4"]);
  await t.throwsAsync((await begin("cpu", { output, saveEvery: "soon" })).trainer.result, {
    code: "ERR_OPTION",
    message: /saveEvery must be a number of steps, a time/,
  });
});

test.serial("save, output and keep are validated against each other", async (t) => {
  const refused = async (more: Partial<TrainerOptions<Net, Batch>>, message: RegExp): Promise<void> => {
    const { trainer } = await begin("cpu", { steps: 1, ...more });
    await t.throwsAsync(trainer.result, { ...isOption, message });
  };
  const output = temporary();
  await refused({ save: "folder", output }, /save names a folder, so that output has no effect/);
  await refused({ save: async () => Promise.resolve("x"), output }, /save is a function, so that output/);
  await refused({ keep: 2 }, /keep limits the checkpoints in output; give output/);
  await refused({ keep: 0, output }, /keep .*\b0$/);
  await refused({ output: "" }, /output .*a folder/);
  await refused({ resume: true }, /resume: true continues from the newest checkpoint in output/);
  t.deepEqual(readdirSync(output), []);

  // A function chooses what to store in each checkpoint.
  const save: TrainerOptions<Net, Batch>["save"] = async (step, write) => {
    const folder = join(output, `mine-${step}`);
    await write(folder, "adapter");
    return folder;
  };
  await (
    await begin("cpu", { save, steps: 2 })
  ).trainer.result;
  t.true(existsSync(join(output, "mine-2", "trained.safetensors")));
});

test.serial("an optimizer over anything but the model's parameters is refused", async (t) => {
  const model = new nn.Linear(2, 1);
  const data = [ones([1, 2])];
  const one = (linear: nn.Linear, x: Tensor): Tensor => linear.forward(x).mean();
  const refused = async (params: Iterable<Tensor>, message: RegExp): Promise<void> => {
    const optimizer = new optim.SGD(params, { lr: 0.1 });
    await t.throwsAsync(new Trainer({ model, optimizer, data, loss: one }).result, { ...isOption, message });
  };
  const other = new nn.Linear(2, 1);
  await refused(
    other.parameters(),
    /optimizer trains no parameter of model \(2 of 2, the first \[1, 2\]\); make it from/,
  );
  const temperature = ones([1], { requiresGrad: true });
  await refused([...model.parameters(), temperature], /parameters that model does not have \(1 of 3/);
  // An optimizer over some of the parameters is accepted.
  const optimizer = new optim.SGD([model.weight], { lr: 0.1 });
  await new Trainer({ model, optimizer, data, loss: one }).result;
});

test.serial("metrics of the loss are means over the batches, in steps and evaluations", async (t) => {
  const model = new nn.Linear(1, 1);
  const optimizer = new optim.SGD(model.parameters(), { lr: 0 });
  const data = [1, 2, 3, 4].map((n) => ({ x: tensor([[n]]), n }));
  const trainer = new Trainer({
    model,
    optimizer,
    data,
    evalData: data,
    gradientAccumulation: 2,
    weight: ({ n }) => n,
    loss: (m, { x, n }) => {
      const y = m.forward(x);
      const metrics = {
        n,
        square: x.mul(x).sum(),
        ...(n === 3 ? { rare: 7 } : {}),
        "top 1": tensor(n, { dtype: "i32" }),
      };
      return { loss: y.mean(), metrics };
    },
  });
  const events: TrainerEvent[] = await collect(trainer);
  const steps = events.flatMap((event) => (event.type === "step" ? [event.metrics] : []));
  const near = (a: unknown, b: Record<string, number>): void => {
    const found = a as Record<string, number>;
    t.deepEqual(Object.keys(found).sort(), Object.keys(b).sort());
    for (const [name, value] of Object.entries(b))
      t.true(Math.abs((found[name] as number) - value) < 1e-12, name);
  };
  // (1·1 + 2·2) / 3 and (1·1 + 2·4) / 3
  near(steps[0], { n: 5 / 3, square: 3, "top 1": 5 / 3 });
  near(steps[1], { n: 25 / 7, square: (3 * 9 + 4 * 16) / 7, rare: 7, "top 1": 25 / 7 });
  const evaluated = events.find((event) => event.type === "eval");
  near(evaluated?.metrics, { n: 3, square: 10, rare: 7, "top 1": 3 });
});

test.serial("a metric that is not finite is reported once, and training continues", async (t) => {
  const model = new nn.Linear(1, 1);
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.01 });
  const data = [1, 2, 3].map((n) => tensor([[n]]));
  const trainer = new Trainer({
    model,
    optimizer,
    data,
    loss: (m, x: Tensor) => ({ loss: m.forward(x).mean(), metrics: { bad: x.sub(x).log(), worse: NaN } }),
  });
  const events: TrainerEvent[] = await collect(trainer);
  t.deepEqual(
    events.flatMap((event) => (event.type === "step" ? [event.metrics] : [])),
    Array.from({ length: 3 }, () => ({ bad: -Infinity, worse: NaN })),
  );
  t.deepEqual(
    events.flatMap((event) => (event.type === "warning" ? [event.message] : [])),
    [
      'step 1: the metric "bad" is -Infinity; training continues',
      'step 1: the metric "worse" is NaN; training continues',
    ],
  );
});

test.serial("a return value of the loss function that is neither loss nor metrics is refused", async (t) => {
  const model = new nn.Linear(1, 1);
  const x = ones([1, 1]);
  for (const [result, message] of [
    [(y: Tensor) => ({ loss: y, metric: { a: 1 } }), /metric/],
    [(y: Tensor) => ({ loss: y, metrics: [1] }), /metrics .*an object of numbers/],
    [
      (y: Tensor) => ({ loss: y, metrics: { a: "1" } }),
      /metrics\["a"\] .* a number or a tensor of one value/,
    ],
    [(y: Tensor) => ({ loss: y, metrics: { a: ones([2]) } }), /metrics\["a"\]/],
    [(y: Tensor) => ({ loss: y, metrics: { "": 1 } }), /needs a name of 1 to 100 printable characters/],
    [(y: Tensor) => ({ loss: y, metrics: { "a\nb": 1 } }), /printable/],
    [() => ({ metrics: { a: 1 } }), /loss .*a tensor/],
    [() => 3, /loss .*a function that returns a tensor/],
  ] as [(y: Tensor) => never, RegExp][]) {
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const trainer = new Trainer({
      model,
      optimizer,
      data: [x],
      loss: (m, one: Tensor) => result(m.forward(one).mean()),
    });
    await t.throwsAsync(trainer.result, { ...isOption, message });
  }
});
