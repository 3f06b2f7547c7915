/** Wrong arguments of layers are errors that name class and argument. */
import test from "ava";
import { LowrankError, nn, tensor, zeros, type ErrorCode } from "../../src/index.js";

const loose = (value: unknown): never => value as never;
const device = "cpu";
const x = (...shape: number[]) => zeros(shape, { device });
const given = x(3);

type Wrong = [code: ErrorCode, message: RegExp, make: () => unknown];

const WRONG: Wrong[] = [
  [
    "ERR_OPTION",
    /^Linear: inFeatures must be a whole number of at least 1, got "a"$/,
    () => new nn.Linear(loose("a"), 3),
  ],
  ["ERR_OPTION", /^Linear: outFeatures .* got 1.5$/, () => new nn.Linear(2, 1.5)],
  [
    "ERR_OPTION",
    /^Linear: bias must be true or false, got 1$/,
    () => new nn.Linear(2, 2, { bias: loose(1) }),
  ],
  [
    "ERR_OPTION",
    /^Linear: there is no option biass \(did you mean bias\?\); there are bias/,
    () => new nn.Linear(2, 2, loose({ biass: false })),
  ],
  [
    "ERR_OPTION",
    /^Linear: the last argument must be an object of options, got true$/,
    () => new nn.Linear(2, 2, loose(true)),
  ],
  [
    "ERR_OPTION",
    /^Linear: weight must be a tensor, got an array/,
    () => new nn.Linear(2, 1, { weight: loose([[1, 2]]), device }),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^Linear: weight is \[3\], where \[1, 2\] was expected$/,
    () => new nn.Linear(2, 1, { weight: given }),
  ],
  [
    "ERR_OPTION",
    /^Linear: the input must be a tensor, got \[1, 2\]$/,
    () => new nn.Linear(2, 1, { device }).forward(loose([1, 2])),
  ],
  ["ERR_SHAPE_MISMATCH", /linear.*\[2, 3\]/, () => new nn.Linear(2, 1, { device }).forward(x(2, 3))],
  ["ERR_OPTION", /^Embedding: numEmbeddings must be a whole number/, () => new nn.Embedding(0, 3)],
  ["ERR_OPTION", /^Embedding: embeddingDim .* got undefined$/, () => new nn.Embedding(3, loose(undefined))],
  [
    "ERR_OPTION",
    /^Embedding: paddingIdx 5 is none of 3 rows$/,
    () => new nn.Embedding(3, 2, { paddingIdx: 5 }),
  ],
  [
    "ERR_OPTION",
    /^Embedding: there is no option padding/,
    () => new nn.Embedding(3, 2, loose({ padding: 0 })),
  ],
  ["ERR_SHAPE_MISMATCH", /^Embedding: weight is \[3\]/, () => new nn.Embedding(3, 2, { weight: given })],
  ["ERR_OUT_OF_MEMORY", /^Embedding: /, () => new nn.Embedding(1e9, 4000, { device })],
  [
    "ERR_OPTION",
    /^Embedding: ids must be a tensor, got 3$/,
    () => new nn.Embedding(3, 2, { device }).forward(loose(3)),
  ],
  [
    "ERR_OPTION",
    /^Conv2d: inChannels must be a whole number of at least 1, got 0$/,
    () => new nn.Conv2d(0, 1, 1),
  ],
  [
    "ERR_OPTION",
    /^Conv1d: kernelSize must be a whole number .* got null$/,
    () => new nn.Conv1d(1, 1, loose(null)),
  ],
  ["ERR_OPTION", /^Conv1d: stride must be .* got "2"$/, () => new nn.Conv1d(1, 1, 1, { stride: loose("2") })],
  [
    "ERR_OPTION",
    /^Conv1d: stride must be at most 2147483647, got 4294967298$/,
    () => new nn.Conv1d(1, 1, 1, { stride: 2 ** 32 + 2 }),
  ],
  [
    "ERR_OPTION",
    /^Conv1d: groups must be at most 2147483647, got 4294967297$/,
    () => new nn.Conv1d(2 ** 32 + 1, 2 ** 32 + 1, 1, { groups: 2 ** 32 + 1, device: "meta:cpu" }),
  ],
  ["ERR_OPTION", /^MaxPool1d: kernelSize must be at most 2147483647, /, () => new nn.MaxPool1d(2 ** 32 + 2)],
  [
    "ERR_OPTION",
    /^AdaptiveAvgPool1d: outputSize must be at most 2147483647, /,
    () => new nn.AdaptiveAvgPool1d(2 ** 32 + 1),
  ],
  [
    "ERR_OPTION",
    /^pad: padding must be of sizes below 2\^31, /,
    () => x(1, 1, 2).pad([0, 2 ** 32 + 1], { mode: "replicate" }),
  ],
  [
    "ERR_OPTION",
    /^crossEntropy: ignoreIndex must be a whole number of 32 bits, got 4294967297$/,
    () => x(1, 2).crossEntropy(tensor([1], { dtype: "i32", device }), { ignoreIndex: 2 ** 32 + 1 }),
  ],
  ["ERR_OPTION", /^Conv3d: there is no option pad;/, () => new nn.Conv3d(1, 1, 1, loose({ pad: 1 }))],
  [
    "ERR_SHAPE_MISMATCH",
    /^Conv1d: biasValues is \[3\], where \[2\]/,
    () => new nn.Conv1d(1, 2, 1, { biasValues: given, device }),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^Conv2d: takes \[B, 2, H, W\] or \[2, H, W\]/,
    () => new nn.Conv2d(2, 1, 1, { device }).forward(x(2, 2)),
  ],
  ["ERR_OPTION", /^ConvTranspose2d: outChannels/, () => new nn.ConvTranspose2d(1, -1, 2)],
  [
    "ERR_OPTION",
    /^ConvTranspose1d: there is no option paddingMode/,
    () => new nn.ConvTranspose1d(1, 1, 2, loose({ paddingMode: "zeros" })),
  ],
  [
    "ERR_OPTION",
    /^ConvTranspose1d: outputPadding must be below the stride 2 or the dilation 1, got 2$/,
    () => new nn.ConvTranspose1d(1, 1, 2, { stride: 2, outputPadding: 2 }),
  ],
  [
    "ERR_OPTION",
    /^ConvTranspose1d: outputSize must be 8 to 9 in dimension 2, got 10$/,
    () => new nn.ConvTranspose1d(1, 1, 2, { stride: 2, device }).forward(x(1, 1, 4), 10),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^ConvTranspose2d: 2 groups do not divide 3/,
    () => new nn.ConvTranspose2d(3, 2, 1, { groups: 2 }),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^ConvTranspose2d: takes \[B, 3, H, W\]/,
    () => new nn.ConvTranspose2d(3, 2, 1, { device }).forward(x(1, 2, 4, 4)),
  ],
  ["ERR_OPTION", /^GroupNorm: numGroups .* got NaN$/, () => new nn.GroupNorm(Number.NaN, 4)],
  [
    "ERR_OPTION",
    /^GroupNorm: there is no option elementwise/,
    () => new nn.GroupNorm(2, 4, loose({ elementwise: true })),
  ],
  ["ERR_OPTION", /^LayerNorm: size .* got \[3, 4\]$/, () => new nn.LayerNorm(loose([3, 4]))],
  [
    "ERR_OPTION",
    /^LayerNorm: eps must be a number of at least 0, got "1e-5"$/,
    () => new nn.LayerNorm(3, { eps: loose("1e-5") }),
  ],
  [
    "ERR_OPTION",
    /^LayerNorm: bias must be true, false or a tensor, got 0$/,
    () => new nn.LayerNorm(3, { bias: loose(0) }),
  ],
  ["ERR_OPTION", /^RMSNorm: there is no option bias/, () => new nn.RMSNorm(3, loose({ bias: false }))],
  [
    "ERR_OPTION",
    /^RMSNorm: the input must be a tensor, got undefined$/,
    () => new nn.RMSNorm(3, { device }).forward(loose(undefined)),
  ],
  ["ERR_OPTION", /^Dropout: p must be a number from 0 to 1, got 2$/, () => new nn.Dropout(2)],
  ["ERR_OPTION", /^MultiheadAttention: numHeads/, () => new nn.MultiheadAttention(4, 0)],
  [
    "ERR_OPTION",
    /^MultiheadAttention: there is no option kdim/,
    () => new nn.MultiheadAttention(4, 2, loose({ kdim: 3 })),
  ],
  [
    "ERR_OPTION",
    /there is no option attnMask; there are isCausal/,
    () =>
      new nn.MultiheadAttention(4, 2, { device }).forward(
        x(1, 1, 4),
        undefined,
        undefined,
        loose({ attnMask: 1 }),
      ),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^MultiheadAttention: key: takes/,
    () => new nn.MultiheadAttention(4, 2, { device }).forward(x(1, 1, 4), x(1, 1, 3)),
  ],
  [
    "ERR_OPTION",
    /^MaxPool2d: there is no option dilation/,
    () => new nn.MaxPool2d(2, loose({ dilation: 2 })),
  ],
  [
    "ERR_OPTION",
    /^AvgPool1d: countIncludePad must be true or false/,
    () => new nn.AvgPool1d(2, { countIncludePad: loose("no") }),
  ],
  ["ERR_OPTION", /^AdaptiveAvgPool2d: outputSize/, () => new nn.AdaptiveAvgPool2d(loose("3"))],
  ["ERR_OPTION", /^MaxPool1d: the input must be a tensor/, () => new nn.MaxPool1d(2).forward(loose(null))],
  [
    "ERR_OPTION",
    /^LSTM: hiddenSize must be a whole number of at least 1, got "8"$/,
    () => new nn.LSTM(2, loose("8")),
  ],
  [
    "ERR_OPTION",
    /^LSTM: projSize must be a whole number below hiddenSize, got 4$/,
    () => new nn.LSTM(2, 4, { projSize: 4 }),
  ],
  ["ERR_OPTION", /^GRU: there is no option projSize/, () => new nn.GRU(2, 4, loose({ projSize: 2 }))],
  [
    "ERR_OPTION",
    /^GRU: dropout must be a number from 0 to 1, got 3$/,
    () => new nn.GRU(2, 4, { dropout: 3 }),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^LSTM: takes \[T, B, 2\] or \[T, 2\]/,
    () => new nn.LSTM(2, 3, { device }).forward(x(4, 1, 3)),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^GRU: takes \[B, T, 2\].*at least one time/,
    () => new nn.GRU(2, 3, { batchFirst: true, device }).forward(x(4, 0, 2)),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^GRU: the state is \[1, 2, 3\], where \[1, 1, 3\] was expected$/,
    () => new nn.GRU(2, 3, { device }).forward(x(4, 1, 2), x(1, 2, 3)),
  ],
  [
    "ERR_OPTION",
    /^LSTM: the state is \[h, c\]/,
    () => new nn.LSTM(2, 3, { device }).forward(x(4, 1, 2), loose(x(1, 1, 3))),
  ],
  ["ERR_OPTION", /^Upsample: give one of size and scaleFactor$/, () => new nn.Upsample({})],
  [
    "ERR_OPTION",
    /^Upsample: mode must be one of nearest/,
    () => new nn.Upsample({ size: 3, mode: loose("bicubic") }),
  ],
  [
    "ERR_OPTION",
    /^Upsample: alignCorners must be unset except for the modes/,
    () => new nn.Upsample({ size: 3, alignCorners: true }),
  ],
  [
    "ERR_OPTION",
    /^Upsample: scaleFactor must be a number above 0, got 0$/,
    () => new nn.Upsample({ scaleFactor: [2, 0] }),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^Upsample \(bilinear\): takes \[B, C, H, W\]/,
    () => new nn.Upsample({ size: 3, mode: "bilinear" }).forward(x(1, 1, 3)),
  ],
  [
    "ERR_OPTION",
    /^Upsample: size must be one number, or 2/,
    () => new nn.Upsample({ size: [3] }).forward(x(1, 1, 3, 3)),
  ],
  ["ERR_OPTION", /^ReLU: the input must be a tensor, got 3$/, () => new nn.ReLU().forward(loose(3))],
  ["ERR_OPTION", /^Softmax: dim must be a whole number/, () => new nn.Softmax(0.5)],
  ["ERR_SHAPE_MISMATCH", /^softmax: there is no dimension 2/, () => new nn.Softmax(2).forward(x(1, 2))],
  ["ERR_OPTION", /^LogSoftmax: dim must be a whole number/, () => new nn.LogSoftmax(loose("1"))],
  ["ERR_OPTION", /^LeakyReLU: negativeSlope must be a finite number/, () => new nn.LeakyReLU(NaN)],
  ["ERR_OPTION", /^ELU: alpha must be a finite number/, () => new nn.ELU(Infinity)],
  ["ERR_OPTION", /^Softplus: beta must be a number above 0, got 0$/, () => new nn.Softplus(0)],
  ["ERR_OPTION", /^Identity: the input must be a tensor/, () => new nn.Identity().forward(loose(null))],
  ["ERR_OPTION", /^PixelShuffle: upscaleFactor/, () => new nn.PixelShuffle(0)],
  [
    "ERR_SHAPE_MISMATCH",
    /^PixelShuffle: takes \[.., C·4, H, W\]/,
    () => new nn.PixelShuffle(2).forward(x(1, 6, 2, 2)),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^PixelUnshuffle: takes \[.., C, H·2, W·2\]/,
    () => new nn.PixelUnshuffle(2).forward(x(1, 3, 2)),
  ],
  ["ERR_OPTION", /^InstanceNorm1d: numFeatures/, () => new nn.InstanceNorm1d(0)],
  ["ERR_OPTION", /^InstanceNorm2d: momentum/, () => new nn.InstanceNorm2d(2, { momentum: 2 })],
  [
    "ERR_SHAPE_MISMATCH",
    /^InstanceNorm1d: takes \[B, C, L\] or \[C, L\] with 3 channels/,
    () => new nn.InstanceNorm1d(3, { device }).forward(x(2, 4, 5)),
  ],
  [
    "ERR_SHAPE_MISMATCH",
    /^InstanceNorm2d: an input of shape \[2, 3, 1, 1\] has 1 values a channel/,
    () => new nn.InstanceNorm2d(3, { device }).forward(x(2, 3, 1, 1)),
  ],
  ["ERR_OPTION", /^Interpolate: give one of size and scaleFactor$/, () => new nn.Interpolate({})],
  ["ERR_OPTION", /^MultiheadAttention: dropout/, () => new nn.MultiheadAttention(4, 2, { dropout: 2 })],
  [
    "ERR_OPTION",
    /^LayerNorm: what is added must be a tensor, got undefined$/,
    () => new nn.LayerNorm(3, { device }).forwardAdded(given, loose(undefined)),
  ],
  [
    "ERR_OPTION",
    /^Sequential.replaceChild: name must be the index of one of 1 modules, got "1"$/,
    () => new nn.Sequential(new nn.ReLU()).replaceChild("1", new nn.ReLU()),
  ],
  [
    "ERR_OPTION",
    /^Linear.replaceChild: name must be a string, got undefined$/,
    () => new nn.Linear(1, 1, { device }).replaceChild(loose(undefined), new nn.ReLU()),
  ],
];

for (const [code, message, make] of WRONG) {
  test(`refused: ${message.source}`, (t) => {
    const error = t.throws(make, { instanceOf: LowrankError, message });
    t.is(error?.code, code);
  });
}
