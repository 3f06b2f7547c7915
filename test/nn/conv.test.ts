import test from "ava";
import { LowrankError, manualSeed, nn, tensor, zeros, type ErrorCode } from "../../src/index.js";
import { readGeometry, convolve, createPointwise } from "../../src/nn/convolution.js";

type Wrong = [what: string, code: ErrorCode, message: RegExp, make: () => unknown];

const x = (...shape: number[]): ReturnType<typeof zeros> => zeros(shape, { device: "cpu" });
const loose = (options: unknown): nn.ConvOptions => options as nn.ConvOptions;

const WRONG: Wrong[] = [
  [
    "groups that do not divide",
    "ERR_SHAPE_MISMATCH",
    /2 groups do not divide 3/,
    () => new nn.Conv2d(3, 4, 3, { groups: 2 }),
  ],
  ["no groups", "ERR_OPTION", /groups/, () => new nn.Conv2d(4, 4, 3, { groups: 0 })],
  [
    "an unknown padding mode",
    "ERR_OPTION",
    /"mirror" is none of zeros, reflect/,
    () => new nn.Conv1d(1, 1, 3, loose({ paddingMode: "mirror" })),
  ],
  [
    "an unknown padding",
    "ERR_OPTION",
    /"full" is neither same nor valid/,
    () => new nn.Conv1d(1, 1, 3, loose({ padding: "full" })),
  ],
  [
    "same at a stride",
    "ERR_OPTION",
    /padding "same" with a stride above 1 \(\[1, 2\]\)/,
    () => new nn.Conv2d(1, 1, 3, { padding: "same", stride: [1, 2] }),
  ],
  ["a stride of 0", "ERR_OPTION", /stride/, () => new nn.Conv2d(1, 1, 3, { stride: 0 })],
  ["a kernel of too few sizes", "ERR_OPTION", /kernelSize/, () => new nn.Conv3d(1, 1, [3, 3])],
  ["negative padding", "ERR_OPTION", /padding/, () => new nn.Conv1d(1, 1, 3, { padding: -1 })],
  [
    "a kernel larger than the input",
    "ERR_SHAPE_MISMATCH",
    /spans 5 elements at dilation 2, the padded input has 4/,
    () => new nn.Conv1d(1, 1, 3, { dilation: 2 }).forward(x(1, 1, 4)),
  ],
  [
    "channels that do not fit",
    "ERR_SHAPE_MISMATCH",
    /the input has 3 channels, the weight takes 2/,
    () => new nn.Conv2d(2, 1, 1).forward(x(1, 3, 4, 4)),
  ],
  [
    "an input of too few dimensions",
    "ERR_SHAPE_MISMATCH",
    /dimensions/,
    () => new nn.Conv2d(2, 1, 1).forward(x(2, 3)),
  ],
  [
    "an input of whole numbers",
    "ERR_DTYPE",
    /f32 input/,
    () => new nn.Conv1d(1, 1, 1).forward(tensor(new Int32Array(4), { shape: [1, 1, 4], device: "cpu" })),
  ],
  [
    "reflection of more than there is",
    "ERR_SHAPE_MISMATCH",
    /reflect takes padding of at most 2/,
    () => new nn.Conv1d(1, 1, 3, { padding: 3, paddingMode: "reflect" }).forward(x(1, 1, 3)),
  ],
  [
    "going round more than once",
    "ERR_SHAPE_MISMATCH",
    /circular takes padding of at most 3/,
    () => new nn.Conv1d(1, 1, 3, { padding: 4, paddingMode: "circular" }).forward(x(1, 1, 3)),
  ],
  [
    "pooling that pads more than half",
    "ERR_OPTION",
    /half the kernel/,
    () => new nn.MaxPool1d(2, { padding: 2 }).forward(x(1, 1, 4)),
  ],
  [
    "pooling a smaller input",
    "ERR_SHAPE_MISMATCH",
    /kernel of 5 is larger/,
    () => new nn.AvgPool2d(5).forward(x(1, 4, 4)),
  ],
  ["groups of a norm", "ERR_SHAPE_MISMATCH", /do not divide/, () => new nn.GroupNorm(4, 6)],
  [
    "channels of a norm",
    "ERR_SHAPE_MISMATCH",
    /takes \[B, 6/,
    () => new nn.GroupNorm(3, 6).forward(x(1, 5, 4)),
  ],
  [
    "heads that do not divide",
    "ERR_SHAPE_MISMATCH",
    /heads do not divide/,
    () => new nn.MultiheadAttention(6, 4),
  ],
];

for (const [what, code, message, make] of WRONG) {
  test(`refused: ${what}`, (t) => {
    const error = t.throws(make, { instanceOf: LowrankError, message });
    t.is(error?.code, code);
  });
}

test("initial weights are uniform within 1/√fan-in, as in PyTorch", async (t) => {
  manualSeed(3);
  const layer = new nn.Conv2d(8, 16, [3, 5], { groups: 2 });
  const bound = 1 / Math.sqrt(4 * 3 * 5);
  t.deepEqual(layer.weight.shape, [16, 4, 3, 5]);
  for (const one of [layer.weight, layer.bias as typeof layer.weight]) {
    const values = [...(await one.data())];
    t.true(values.every((v) => Math.abs(v) <= bound));
    t.true(Math.max(...values.map(Math.abs)) > bound * 0.8);
  }
  t.deepEqual(Object.keys(layer.stateDict()), ["weight", "bias"]);
  t.deepEqual(Object.keys(new nn.Conv1d(2, 2, 1, { bias: false }).stateDict()), ["weight"]);
});

/** B as a kernel of size 1 after A with the layer's geometry equals the layer with B·A. */
test("a product of two kernels equals two convolutions", async (t) => {
  manualSeed(5);
  const [a, b] = [
    new nn.Conv2d(4, 6, 3, { bias: false }),
    new nn.Conv2d(6, 8, 1, { groups: 2, bias: false }),
  ];
  const geometry = readGeometry("test", [3, 3], { stride: 2, padding: 1, groups: 2 });
  const weights = a.weight.slice(1, 0, 2);
  const input = tensor(
    Float32Array.from({ length: 2 * 4 * 7 * 7 }, (_, i) => Math.sin(i)),
    { shape: [2, 4, 7, 7] },
  );
  const twice = convolve(convolve(input, weights, null, geometry), b.weight, null, createPointwise(2, 2));
  const product = b.weight
    .reshape(2, 4, 3)
    .matmul(weights.reshape(2, 3, 18))
    .reshape(8, 2, 3, 3);
  const once = convolve(input, product, null, geometry);
  t.deepEqual(once.shape, [2, 8, 4, 4]);
  const [left, right] = [await twice.data(), await once.data()];
  t.true(left.every((v, i) => Math.abs(v - (right[i] as number)) < 1e-6));
});
