import { join } from "node:path";

import test from "ava";
import {
  checkpoint,
  LowrankError,
  lora,
  manualSeed,
  memory,
  nn,
  randn,
  scope,
  tensor,
  zeros,
  type ErrorCode,
  type Tensor,
} from "../../src/index.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";

const device = "cpu";

/** A module with each kind of tensor. */
class Counter extends nn.Module {
  weight = tensor([1, 2], { device, requiresGrad: true });
  declare seen: Tensor;
  declare scratch: Tensor | null;

  constructor() {
    super();
    this.registerBuffer("seen", zeros([2], { device }));
    this.registerBuffer("scratch", null, { persistent: false });
  }

  forward(x: Tensor): Tensor {
    this.seen = this.seen.add(1);
    this.scratch = x.detach();
    return x.mul(this.weight);
  }
}

async function values(x: Tensor | undefined | null): Promise<number[]> {
  return [...(await (x as Tensor).data())];
}

test("buffers are saved and loaded, are no parameters, and outlive the scope in which they were assigned", async (t) => {
  const counter = new Counter();
  const sequence = new nn.Sequential(counter);
  for (let i = 0; i < 3; i++) scope(() => void sequence.forward(tensor([1, 1], { device })));
  t.deepEqual(Object.keys(sequence.stateDict()), ["0.weight", "0.seen"]);
  t.deepEqual(
    [...sequence.namedParameters()].map(([name]) => name),
    ["0.weight"],
  );
  t.deepEqual(
    [...sequence.namedBuffers()].map(([name]) => name),
    ["0.seen", "0.scratch"],
  );
  t.deepEqual(await values(counter.seen), [3, 3]);
  const other = new nn.Sequential(new Counter());
  other.loadStateDict(sequence.stateDict());
  t.deepEqual(await values(other.stateDict()["0.seen"]), [3, 3]);
  sequence.dispose();
  t.true(counter.seen.disposed);
});

test("parameters can be filtered by whether they are trained", (t) => {
  const model = new nn.Sequential(new nn.Linear(2, 3, { device }), new nn.Linear(3, 1, { device }));
  (model.layers[0] as nn.Linear).weight.requiresGrad = false;
  const names = (filter?: nn.ParameterFilter): string[] =>
    [...model.namedParameters(filter)].map(([name]) => name);
  t.deepEqual(names(), ["0.weight", "0.bias", "1.weight", "1.bias"]);
  t.deepEqual(names({ trainable: true }), ["0.bias", "1.weight", "1.bias"]);
  t.deepEqual(names({ trainable: false }), ["0.weight"]);
  t.is([...model.parameters({ trainable: true })].length, 3);
});

test("containers name their modules as in PyTorch, and copy, replace and move them", async (t) => {
  class Net extends nn.Module {
    blocks = new nn.ModuleList<nn.Linear>([new nn.Linear(2, 2, { device })]);
    heads = new nn.ModuleDict<nn.Linear>({ a: new nn.Linear(2, 1, { device }) });

    constructor() {
      super();
      this.blocks.push(new nn.Linear(2, 2, { device, bias: false }));
      this.heads.set("b", new nn.Linear(2, 3, { device, bias: false }));
    }

    forward(x: Tensor): Tensor {
      return this.heads.get("b").forward([...this.blocks].reduce((y, block) => block.forward(y), x));
    }
  }
  const net = new Net();
  const keys = [
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.weight",
    "heads.a.weight",
    "heads.a.bias",
    "heads.b.weight",
  ];
  t.deepEqual(Object.keys(net.stateDict()), keys);
  t.is(net.blocks.length + net.heads.size, 4);
  t.true(net.blocks.at(-1) === net.blocks.items[1]);
  const old = net.heads.get("a");
  const { adapted } = await lora.inject(net, { r: 1, targetModules: ["0"], modulesToSave: ["heads"] });
  t.deepEqual(adapted, ["blocks.0"]);
  t.true(net.blocks.at(0) instanceof lora.LoRALayer);
  t.not(net.heads.get("a"), old);
  lora.unload(net);
  t.is(net.heads.get("a"), old);
  t.deepEqual(Object.keys(net.stateDict()), keys);
});

for (const on of testDevices()) {
  test.serial(
    `on ${on} the replay of a checkpoint does not update a batch norm's statistics again`,
    async (t) => {
      manualSeed(1);
      const input = randn([4, 3, 5], { device: on, requiresGrad: true });
      const results: number[][] = [];
      for (const replays of [false, true]) {
        const norm = new nn.BatchNorm1d(3, { device: on });
        const run = (): Tensor => norm.forward(norm.forward(input)).tanh();
        const loss = scope(() => (replays ? checkpoint(run) : run()).sum());
        loss.backward();
        const state = await Promise.all(Object.values(norm.stateDict()).map(values));
        results.push([...state.flat(), ...(await values(input.grad)), ...(await values(norm.weight?.grad))]);
        t.is(await (norm.num_batches_tracked as Tensor).item(), 2);
        input.grad = null;
      }
      t.deepEqual(results[1], results[0]);
      t.true((results[0] as number[]).every(Number.isFinite));
    },
  );
}

test("a batch norm in an adapter has separate buffers, which its file restores", async (t) => {
  const build = (): nn.Sequential =>
    new nn.Sequential(new nn.Linear(3, 4, { device }), new nn.BatchNorm1d(4, { device }));
  manualSeed(2);
  const [model, folder] = [build(), join(temporary(), "adapter")];
  const base = model.layers[1] as nn.BatchNorm1d;
  await lora.inject(model, { r: 2, targetModules: ["0"], modulesToSave: ["1"] });
  model.forward(randn([5, 3], { device }));
  const own = model.layers[1] as nn.BatchNorm1d;
  t.not(own, base);
  t.is(own.num_batches_tracked?.dtype, "i32");
  t.deepEqual(await values(base.running_mean), [0, 0, 0, 0]);
  t.is(await (own.num_batches_tracked as Tensor).item(), 1);
  t.false([...model.parameters()].includes(own.running_mean as Tensor));
  await lora.saveAdapter(model, folder);

  const again = build();
  await lora.loadAdapter(again, folder);
  const loaded = again.layers[1] as nn.BatchNorm1d;
  for (const [key, one] of Object.entries(own.stateDict()))
    t.deepEqual(await values(loaded.stateDict()[key]), await values(one), key);
  const before = memory(device).tensors;
  lora.unload(again);
  t.true(loaded.running_mean?.disposed === true && memory(device).tensors < before);
});

test("models with recurrent and transposed layers are adapted, and copied for an adapter", async (t) => {
  class Net extends nn.Module {
    lstm = new nn.LSTM(3, 4, { device, bidirectional: true });
    up = new nn.ConvTranspose1d(8, 2, 2, { stride: 2, device });
    head = new nn.Linear(2, 1, { device });

    forward(x: Tensor): Tensor {
      const [y] = this.lstm.forward(x);
      return this.head.forward(this.up.forward(y.permute(1, 2, 0)).transpose(1, 2));
    }
  }
  manualSeed(3);
  const net = new Net();
  const x = randn([5, 2, 3], { device });
  const before = await values(net.forward(x));
  const { lstm } = net;
  const report = await lora.inject(net, { r: 2, modulesToSave: ["lstm", "up"] });
  t.deepEqual(report.adapted, ["head"]);
  t.not(net.lstm, lstm);
  t.deepEqual(await values(net.forward(x)), before);
  const trained = [...net.namedParameters({ trainable: true })].map(([name]) => name);
  t.is(trained.filter((name) => name.startsWith("lstm.")).length, 8);
  t.true(trained.includes("up.weight") && !trained.includes("head.weight"));
  net.forward(x).sum().backward();
  t.true([...net.parameters({ trainable: true })].every(({ grad }) => grad !== null));
  lora.unload(net);
  t.is(net.lstm, lstm);
  t.deepEqual(await values(net.forward(x)), before);
});

type Wrong = [what: string, code: ErrorCode, message: RegExp, make: () => unknown];

const loose = (value: unknown): never => value as never;
const counter = new Counter();
const linear = new nn.Linear(2, 1, { device });

const WRONG: Wrong[] = [
  [
    "a buffer of the wrong type",
    "ERR_OPTION",
    /Counter.registerBuffer: x must be a tensor or null, got 3/,
    () => counter.registerBuffer("x", loose(3)),
  ],
  [
    "a buffer assigned a value of the wrong type",
    "ERR_OPTION",
    /seen must be a tensor or null, got "a"/,
    () => (counter.seen = loose("a")),
  ],
  [
    "a buffer's name with a dot",
    "ERR_OPTION",
    /name must be a name without dots, got "a.b"/,
    () => counter.registerBuffer("a.b", null),
  ],
  [
    "a name that is taken",
    "ERR_OPTION",
    /name must be the name of a new property/,
    () => counter.registerBuffer("weight", zeros([1], { device })),
  ],
  [
    "a parameter as a buffer",
    "ERR_OPTION",
    /y must be a tensor that is not a parameter/,
    () => counter.registerBuffer("y", counter.weight),
  ],
  [
    "an option of a buffer",
    "ERR_OPTION",
    /no option saved; there are persistent/,
    () => counter.registerBuffer("z", null, loose({ saved: true })),
  ],
  [
    "a filter",
    "ERR_OPTION",
    /namedParameters: trainable must be true or false, got 1/,
    () => counter.parameters(loose({ trainable: 1 })),
  ],
  ["a mode", "ERR_OPTION", /Counter.train: mode must be true or false/, () => counter.train(loose("yes"))],
  [
    "no state",
    "ERR_OPTION",
    /state must be a dictionary of tensors, got null/,
    () => linear.loadStateDict(loose(null)),
  ],
  [
    "a state of numbers",
    "ERR_OPTION",
    /loadStateDict: weight must be a tensor, got 1/,
    () => linear.loadStateDict(loose({ weight: 1 })),
  ],
  [
    "no module in a sequence",
    "ERR_OPTION",
    /Sequential: layer 1 must be a module, got a function/,
    () =>
      new nn.Sequential(
        linear,
        loose(() => 1),
      ),
  ],
  [
    "no module in a list",
    "ERR_OPTION",
    /ModuleList: module 0 must be a module, got 1/,
    () => new nn.ModuleList(loose([1])),
  ],
  ["no list", "ERR_OPTION", /modules must be an array of modules, got 3/, () => new nn.ModuleList(loose(3))],
  ["an index out of range", "ERR_INDEX", /no module 2 among 1/, () => new nn.ModuleList([linear]).at(2)],
  [
    "no module in a dictionary",
    "ERR_OPTION",
    /ModuleDict: a must be a module, got null/,
    () => new nn.ModuleDict(loose({ a: null })),
  ],
  [
    "an invalid name",
    "ERR_OPTION",
    /no module "b"; there are a/,
    () => new nn.ModuleDict({ a: linear }).get("b"),
  ],
  ["a list that runs", "ERR_OPTION", /cannot run as a module/, () => new nn.ModuleList([linear]).forward()],
  [
    "no features",
    "ERR_OPTION",
    /BatchNorm2d: numFeatures must be a whole number of at least 1, got 0/,
    () => new nn.BatchNorm2d(0),
  ],
  [
    "a norm's option",
    "ERR_OPTION",
    /BatchNorm1d: there is no option epsilon/,
    () => new nn.BatchNorm1d(1, loose({ epsilon: 1 })),
  ],
  [
    "a momentum",
    "ERR_OPTION",
    /momentum must be null or a number from 0 to 1, got 2/,
    () => new nn.BatchNorm1d(1, { momentum: 2 }),
  ],
  [
    "a batch of one",
    "ERR_SHAPE_MISMATCH",
    /has 1 values a channel/,
    () => new nn.BatchNorm1d(2, { device }).forward(zeros([1, 2], { device })),
  ],
  [
    "other channels",
    "ERR_SHAPE_MISMATCH",
    /BatchNorm2d: takes \[B, C, H, W\] with 2 channels/,
    () => new nn.BatchNorm2d(2, { device }).forward(zeros([1, 3, 2, 2], { device })),
  ],
  [
    "no input",
    "ERR_OPTION",
    /BatchNorm1d: the input must be a tensor, got undefined/,
    () => new nn.BatchNorm1d(2, { device }).forward(loose(undefined)),
  ],
  [
    "losses of shapes that differ",
    "ERR_SHAPE_MISMATCH",
    /mseLoss: input is \[2\] and target \[2, 1\]/,
    () => nn.mseLoss(zeros([2]), zeros([2, 1])),
  ],
  [
    "a loss's target",
    "ERR_OPTION",
    /huberLoss: target must be a tensor, got 1/,
    () => nn.huberLoss(zeros([2]), loose(1)),
  ],
  [
    "a reduction",
    "ERR_OPTION",
    /klDiv: reduction must be one of mean, sum, none, batchmean, got "avg"/,
    () => nn.klDiv(zeros([2]), zeros([2]), loose({ reduction: "avg" })),
  ],
  [
    "a loss's option",
    "ERR_OPTION",
    /l1Loss: there is no option delta/,
    () => nn.l1Loss(zeros([2]), zeros([2]), loose({ delta: 1 })),
  ],
  [
    "a weight that does not fit",
    "ERR_SHAPE_MISMATCH",
    /posWeight of shape \[3\] is not broadcast/,
    () => nn.bceWithLogits(zeros([2]), zeros([2]), { posWeight: zeros([3]) }),
  ],
  [
    "an activation's form",
    "ERR_OPTION",
    /GELU: approximate must be one of none, tanh/,
    () => new nn.GELU(loose({ approximate: "erf" })),
  ],
  [
    "an invalid dimension",
    "ERR_OPTION",
    /Flatten: startDim must be a whole number, got 0.5/,
    () => new nn.Flatten(0.5),
  ],
];

for (const [what, code, message, make] of WRONG) {
  test(`refused: ${what}`, (t) => {
    const error = t.throws(make, { instanceOf: LowrankError, message });
    t.is(error?.code, code);
  });
}

test("losses are correct at the corners of their formulas", async (t) => {
  const zero = (): Tensor => zeros([1], { device, requiresGrad: true });
  const gradient = async (loss: (x: Tensor) => Tensor): Promise<number[]> => {
    const x = zero();
    loss(x).backward();
    return values(x.grad);
  };
  const same = zeros([1], { device });
  t.deepEqual(await gradient((x) => nn.bceWithLogits(x, same)), [0.5]);
  t.deepEqual(await gradient((x) => nn.bceWithLogits(x, same.add(1))), [-0.5]);
  t.deepEqual(await gradient((x) => nn.l1Loss(x, same)), [0]);
  t.deepEqual(await values(nn.klDiv(same.sub(1), same, { reduction: "none" })), [0]);
  t.deepEqual(
    await values(nn.bceWithLogits(tensor([200, -200], { device }), tensor([1, 0], { device }))),
    [0],
  );
  t.deepEqual(await values(nn.cosineSimilarity(zeros([1, 3], { device }), zeros([1, 3], { device }))), [0]);
});

test("cosineSimilarity counts a broadcast element once for each element of the vector", async (t) => {
  const given = [3, 4, -1, 2].map((v) => v / 2);
  const [a, all] = [
    tensor(given, { shape: [2, 2], device, requiresGrad: true }),
    tensor([2, 2, -0.5, -0.5], { shape: [2, 2], device }),
  ];
  const one = tensor([2, -0.5], { shape: [2, 1], device });
  for (const [x, y] of [
    [a, one],
    [one, a],
  ] as const) {
    const of = async (other: Tensor): Promise<number[]> => {
      const result = x === one ? nn.cosineSimilarity(other, a) : nn.cosineSimilarity(a, other);
      result.sum().backward();
      const gradient = await (a.grad as Tensor).data();
      a.grad = null;
      return [...(await result.data()), ...gradient];
    };
    const [wide, narrow] = [await of(all), await of(x === one ? x : y)];
    for (const [i, v] of narrow.entries()) t.true(Math.abs(v - (wide[i] as number)) < 1e-6);
    t.true(Math.abs((narrow[0] as number) - 7 / (5 * Math.SQRT2)) < 1e-6, `${narrow[0]}`);
  }
});

test("the pieces of split and chunk depend on the shape", async (t) => {
  t.deepEqual(
    zeros([200, 1], { device })
      .split(4)
      .map(({ shape }) => shape),
    Array.from({ length: 50 }, () => [4, 1]),
  );
  const pieces = tensor([...Array(1024).keys()], { device }).chunk(16);
  t.is(pieces.length, 16);
  t.is(await (pieces[15] as Tensor).slice(0, 63).item(), 1023);
});

// PyTorch uses the copy formula only in two dimensions, for factors of about 1 or 2.
test("nearest elements by a factor are PyTorch's, for each number of dimensions", async (t) => {
  for (const [scale, copies, places] of [
    [2.3, [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2]],
    [1.3, [0, 1, 2], [0, 0, 1]],
  ] as const)
    for (const dims of [1, 2, 3]) {
      const ones = Array<number>(dims - 1).fill(1);
      const x = tensor([0, 1, 2], { shape: [1, 1, 3, ...ones], device });
      const y = new nn.Upsample({ scaleFactor: [scale, ...ones] }).forward(x);
      t.deepEqual([...(await y.data())], [...(dims === 2 ? copies : places)], `${scale}, ${dims}`);
    }
});
