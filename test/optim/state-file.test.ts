import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  LowrankError,
  manualSeed,
  memory,
  nn,
  optim,
  randn,
  safetensors,
  scope,
  tensor,
  zeros,
  type ErrorCode,
  type Tensor,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices, type TestDevice } from "../devices.js";
import { temporary } from "../hashed.js";

function model(device: TestDevice): nn.Sequential {
  return new nn.Sequential(new nn.Linear(3, 5, { device }), new nn.Linear(5, 1, { device }));
}

type Made = (net: nn.Sequential) => optim.Optimizer;

const KINDS: Record<string, Made> = {
  AdamW: (net) =>
    new optim.AdamW([
      { params: (net.layers[0] as nn.Linear).parameters(), lr: 0.1, betas: [0.8, 0.9] },
      { params: (net.layers[1] as nn.Linear).parameters(), weightDecay: 0 },
    ]),
  SGD: (net) => new optim.SGD(net.parameters(), { lr: 0.1, momentum: 0.9, nesterov: true }),
};

function step(net: nn.Sequential, optimizer: optim.Optimizer, seed: number, device: TestDevice): void {
  manualSeed(seed);
  scope(() =>
    net
      .forward(randn([4, 3], { device }))
      .tanh()
      .sum()
      .backward(),
  );
  optimizer.step();
  optimizer.zeroGrad();
}

async function bits(net: nn.Module): Promise<number[]> {
  const all = await Promise.all([...net.parameters()].map(async (one) => [...(await one.data())]));
  return all.flat();
}

for (const device of testDevices()) {
  for (const [kind, make] of Object.entries(KINDS)) {
    test.serial(`${kind} on ${device} continues from its file with the same bits`, async (t) => {
      manualSeed(1);
      const [net, file] = [model(device), join(temporary(), "optimizer.safetensors")];
      const optimizer = make(net);
      for (let i = 0; i < 3; i++) step(net, optimizer, i, device);
      (optimizer.groups[0] as { lr: number }).lr = 0.05;
      const writing = optimizer.save(file);
      const weights = await bits(net);
      // The file contains the state at the call of save.
      for (let i = 3; i < 6; i++) step(net, optimizer, i, device);
      await writing;

      const again = model(device);
      let at = 0;
      for (const one of again.parameters()) {
        const values = Float32Array.from(weights.slice(at, (at += one.size)));
        one.copy(tensor(values, { shape: one.shape, device }));
      }
      const before = (await atRest(device)).tensors;
      const other = make(again);
      await other.load(file);
      t.is(memory(device).tensors, before);
      t.is(other.groups[0]?.lr, 0.05);
      for (let i = 3; i < 6; i++) step(again, other, i, device);
      t.deepEqual(await bits(again), await bits(net));
    });
  }
}

test("an unsuitable file is refused with a description of its content, and nothing is changed", async (t) => {
  const net = model("cpu");
  const folder = temporary();
  const file = join(folder, "adamw.safetensors");
  const adamw = new optim.AdamW(net.parameters());
  step(net, adamw, 1, "cpu");
  await adamw.save(file);
  const plain = join(folder, "plain.safetensors");
  await safetensors.save(plain, { weight: zeros([2], { device: "cpu" }) });
  const cut = join(folder, "cut.safetensors");
  writeFileSync(cut, readFileSync(file).subarray(0, -40));
  let made = 0;
  const forged = (change: (text: string) => string): string => {
    const bytes = readFileSync(file);
    const size = Number(bytes.readBigUInt64LE());
    const header = change(bytes.subarray(8, 8 + size).toString());
    const path = join(folder, `forged-${made++}.safetensors`);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)));
    writeFileSync(path, Buffer.concat([length, Buffer.from(header), bytes.subarray(8 + size)]));
    return path;
  };

  const WRONG: [path: string, optimizer: optim.Optimizer, code: ErrorCode, message: RegExp][] = [
    [join(folder, "none"), adamw, "ERR_FILE_NOT_FOUND", /none/],
    [plain, adamw, "ERR_FILE_FORMAT", /contains no optimizer state/],
    [cut, adamw, "ERR_FILE_FORMAT", /cut/],
    [
      file,
      new optim.SGD(model("cpu").parameters()),
      "ERR_UNMATCHED_KEY",
      /is of adamw, but the optimizer is sgd/,
    ],
    [
      file,
      new optim.AdamW(new nn.Linear(3, 5, { device: "cpu" }).parameters()),
      "ERR_SHAPE_MISMATCH",
      /1 groups of 4 parameters, but the optimizer of 1 groups of 2/,
    ],
    [
      file,
      new optim.AdamW(new nn.Sequential(new nn.Linear(3, 4), new nn.Linear(4, 1)).to("cpu").parameters()),
      "ERR_SHAPE_MISMATCH",
      /0\.exp_avg is f32 \[5, 3\], and parameter 0 f32 \[4, 3\]/,
    ],
    [forged((text) => text.replace("0.001", "null ")), adamw, "ERR_FILE_FORMAT", /options of group 0/],
    [forged((text) => text.replace('version\\":1', 'version\\":9')), adamw, "ERR_FILE_FORMAT", /version 9/],
    [
      forged((text) => text.replace("[1,1,1,1]", "[1,1,1,0]")),
      adamw,
      "ERR_UNMATCHED_KEY",
      /unexpected: 3\.exp_avg/,
    ],
    [
      forged((text) => text.replace("[1,1,1,1]", "[1,1,1.5,1]")),
      adamw,
      "ERR_FILE_FORMAT",
      /count of updates/,
    ],
  ];
  const state = async (): Promise<number[]> => {
    const { state } = adamw.stateDict();
    const first = state[0] as optim.ParameterState;
    return [...(await (first["exp_avg"] as Tensor).data())];
  };
  const before = await state();
  for (const [path, optimizer, code, message] of WRONG) {
    const error = await t.throwsAsync(optimizer.load(path), {
      instanceOf: LowrankError,
      message,
    });
    t.is((error as LowrankError | undefined)?.code, code, String(message));
    t.deepEqual(await state(), before);
  }
  const failed = await t.throwsAsync(adamw.save(join(folder, "no", "such", "folder")), {
    instanceOf: LowrankError,
  });
  t.is((failed as LowrankError).code, "ERR_WRITE");
});

const loose = (value: unknown): never => value as never;
const p = zeros([1], { device: "cpu", requiresGrad: true });

const ARGUMENTS: [what: string, message: RegExp, make: () => unknown][] = [
  [
    "no parameters",
    /AdamW: params must be a list of tensors, got undefined/,
    () => new optim.AdamW(loose(undefined)),
  ],
  [
    "a tensor for a list",
    /SGD: params must be a list of tensors, got a Tensor/,
    () => new optim.SGD(loose(p)),
  ],
  [
    "a number among parameters",
    /params\[1\] must be a tensor, or a group .* got 3/,
    () => new optim.AdamW(loose([p, 3])),
  ],
  [
    "a group without parameters",
    /group 0: params must be a list of tensors, got undefined/,
    () => new optim.AdamW(loose([{ lr: 1 }])),
  ],
  [
    "an unknown option",
    /SGD: there is no option learningRate; use lr, the peak learning rate$/,
    () => new optim.SGD([p], loose({ learningRate: 1 })),
  ],
  [
    "a group's unknown option",
    /group 0: there is no option momentun/,
    () => new optim.SGD(loose([{ params: [p], momentun: 1 }])),
  ],
  [
    "a rate of type string",
    /group 0: lr must be a number, got "0.1"/,
    () => new optim.AdamW([p], loose({ lr: "0.1" })),
  ],
  ["one beta", /betas must be two numbers, got \[0.9\]/, () => new optim.AdamW([p], loose({ betas: [0.9] }))],
  [
    "nothing to clip",
    /clipGradNorm: params must be a list of tensors, got null/,
    () => optim.clipGradNorm(loose(null), 1),
  ],
  [
    "an invalid norm",
    /clipGradNorm: max must be a number of at least 0, got NaN/,
    () => optim.clipGradNorm([p], Number.NaN),
  ],
  [
    "an invalid state",
    /loadStateDict: the state must be what stateDict\(\) gives, got an object/,
    () => new optim.SGD([p]).loadStateDict(loose({ state: {} })),
  ],
  [
    "an invalid norm of a clipped step",
    /stepClipped: max must be a number of at least 0, got "1"/,
    () => new optim.SGD([p]).stepClipped(loose("1")),
  ],
];

for (const [what, message, make] of ARGUMENTS) {
  test(`refused: ${what}`, (t) => {
    const error = t.throws(make, { instanceOf: LowrankError, message });
    t.is(error?.code, "ERR_OPTION");
  });
}
