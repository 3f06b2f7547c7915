/** Checks of kernels that move values or compute elementwise. */
import { full } from "../../tensor/create.js";
import { session } from "../../native/binding.js";
import { runWithRandom } from "../../tensor/random.js";
import { recordOp, type Tensor } from "../../tensor/tensor.js";
import { makeConstant, makeCheck, makeExact, makeIndices, makeInput, type Check } from "./check.js";

const SHAPE = [5, 67, 33];

/** Unary functions with suitable ranges of inputs. */
const UNARY: readonly [name: string, low: number, high: number, f: (x: Tensor) => Tensor][] = [
  ["exp", -5, 5, (x) => x.exp()],
  ["log", 0.1, 9, (x) => x.log()],
  ["sqrt", 0.1, 9, (x) => x.sqrt()],
  ["rsqrt", 0.1, 9, (x) => x.rsqrt()],
  ["sin", -20, 20, (x) => x.sin()],
  ["cos", -20, 20, (x) => x.cos()],
  ["tanh", -4, 4, (x) => x.tanh()],
  ["sigmoid", -6, 6, (x) => x.sigmoid()],
  ["silu", -6, 6, (x) => x.silu()],
  ["gelu", -4, 4, (x) => x.gelu()],
  ["gelu (tanh)", -4, 4, (x) => x.gelu({ approximate: "tanh" })],
  ["relu", -1, 1, (x) => x.relu()],
  ["erf", -3, 3, (x) => x.erf()],
  ["softplus", -6, 6, (x) => x.softplus()],
  ["log sigmoid", -6, 6, (x) => x.logSigmoid()],
  ["abs", -1, 1, (x) => x.abs()],
  ["neg", -1, 1, (x) => x.neg()],
];

/** Unary functions without a gradient. */
const STEPS: readonly [name: string, f: (x: Tensor) => Tensor][] = [
  ["round", (x) => x.round()],
  ["floor", (x) => x.floor()],
  ["ceil", (x) => x.ceil()],
  ["trunc", (x) => x.trunc()],
  ["sign", (x) => x.sign()],
];

const BINARY: readonly [name: string, f: (a: Tensor, b: Tensor) => Tensor][] = [
  ["add", (a, b) => a.add(b)],
  ["sub", (a, b) => a.sub(b)],
  ["mul", (a, b) => a.mul(b)],
  ["div", (a, b) => a.div(b)],
  ["pow", (a, b) => a.pow(b)],
  ["maximum", (a, b) => a.maximum(b)],
  ["minimum", (a, b) => a.minimum(b)],
];

const COMPARISONS: readonly [name: string, f: (a: Tensor, b: Tensor) => Tensor][] = [
  ["eq", (a, b) => a.eq(b)],
  ["lt", (a, b) => a.lt(b)],
  ["le", (a, b) => a.le(b)],
  ["ge", (a, b) => a.ge(b)],
];

/** Functions in the short test, chosen for the most commonly trained models. */
const QUICK = new Set(["exp", "silu", "gelu", "tanh", "sigmoid", "add", "mul", "sin"]);

export function listValueChecks(): Check[] {
  const unary = UNARY.map(([name, low, high, f]) =>
    makeCheck("elementwise", name, { x: makeInput(SHAPE, low, high) }, ({ x }) => f(x), {
      quick: QUICK.has(name),
    }),
  );
  const steps = STEPS.map(([name, f]) =>
    makeCheck("elementwise", name, { x: makeConstant(SHAPE, -9, 9) }, ({ x }) => f(x)),
  );
  const binary = BINARY.map(([name, f]) =>
    makeCheck(
      "elementwise",
      `${name}, broadcast`,
      { a: makeInput([5, 67, 1], 0.5, 2), b: makeInput([1, 33], 0.3, 1.7) },
      ({ a, b }) => f(a, b),
      { quick: QUICK.has(name) },
    ),
  );
  const comparisons = COMPARISONS.map(([name, f]) =>
    makeCheck("elementwise", name, { a: makeIndices([67, 33], 5), b: makeIndices([33], 5) }, ({ a, b }) =>
      f(a, b),
    ),
  );
  return [...unary, ...steps, ...binary, ...comparisons, ...listOthers(), ...listMoves()];
}

function listOthers(): Check[] {
  return [
    makeCheck(
      "elementwise",
      "gated silu",
      { gate: makeInput(SHAPE, -5, 5), up: makeInput(SHAPE) },
      ({ gate, up }) => gate.siluMul(up),
      { quick: true },
    ),
    makeCheck("elementwise", "clamp", { x: makeInput(SHAPE, -2, 2) }, ({ x }) => x.clamp(-0.7, 0.9)),
    makeCheck(
      "elementwise",
      "where",
      { a: makeInput(SHAPE), b: makeInput(SHAPE), c: makeIndices(SHAPE, 2) },
      ({ a, b, c }) => a.where(c, b),
    ),
    makeCheck(
      "elementwise",
      "numbers that are none",
      { x: makeExact([NaN, Infinity, -Infinity, 0, 1, -1]) },
      ({ x }) => ({ finite: x.isFinite(), relu: x.relu(), exp: x.exp() }),
    ),
    makeCheck(
      "fill",
      "fill",
      { x: makeConstant([3]) },
      ({ x }) => full([67, 33], 1.25, { device: x.device }),
      {
        quick: true,
      },
    ),
    makeCheck(
      "dropout",
      "dropout",
      { x: makeInput([67, 131]) },
      ({ x }) => runWithRandom(7, () => x.dropout(0.3)),
      { quick: true },
    ),
    makeCheck("cast", "cast to bf16 and back", { x: makeInput(SHAPE) }, ({ x }) => x.to("bf16").to("f32"), {
      quick: true,
    }),
    makeCheck("cast", "cast to f16 and back", { x: makeInput(SHAPE) }, ({ x }) => x.to("f16").to("f32"), {
      readsF16: true,
    }),
    makeCheck("cast", "cast to i32", { x: makeConstant(SHAPE, -99, 99) }, ({ x }) => x.to("i32")),
  ];
}

function listMoves(): Check[] {
  return [
    makeCheck("copy", "transpose", { x: makeInput(SHAPE) }, ({ x }) => x.transpose(0, 2), { quick: true }),
    makeCheck("copy", "permute", { x: makeInput([3, 5, 7, 9]) }, ({ x }) => x.permute(2, 0, 3, 1)),
    makeCheck("copy", "slice", { x: makeInput(SHAPE) }, ({ x }) => x.slice(1, 3, 64).slice(2, 1, 30), {
      quick: true,
    }),
    makeCheck("copy", "concat", { a: makeInput([5, 7, 33]), b: makeInput([5, 61, 33]) }, ({ a, b }) =>
      a.concat(b, 1),
    ),
    makeCheck("copy", "split", { x: makeInput(SHAPE) }, ({ x }) => {
      const [a, b, c] = x.split([1, 40, 26], 1) as [Tensor, Tensor, Tensor];
      return { a, b, c };
    }),
    makeCheck("copy", "expand", { x: makeInput([5, 1, 33]) }, ({ x }) => x.expand(5, 67, 33), {
      // The gradient is a sum over the repeated dimension.
      tolerance: 2e-5,
    }),
    makeCheck("flip", "flip", { x: makeInput(SHAPE) }, ({ x }) => x.flip(0, 2), { quick: true }),
    makeCheck("pad", "pad by a constant", { x: makeInput(SHAPE) }, ({ x }) =>
      x.pad([3, 2, 1, 4], { value: 2 }),
    ),
    ...(["reflect", "replicate", "circular"] as const).map((mode) =>
      makeCheck("pad", `pad, ${mode}`, { x: makeInput(SHAPE) }, ({ x }) => x.pad([3, 2, 1, 4], { mode }), {
        quick: mode === "reflect",
      }),
    ),
    makeCheck(
      "gather",
      "gather",
      { x: makeInput([67, 33]), at: makeIndices([67, 9], 33) },
      ({ x, at }) => x.gather(1, at),
      { quick: true },
    ),
    makeCheck("gather", "index select", { x: makeInput([67, 33]), at: makeIndices([91], 67) }, ({ x, at }) =>
      x.indexSelect(0, at),
    ),
    makeCheck(
      "gather",
      "scatter add",
      { x: makeInput([67, 33]), at: makeIndices([67, 90], 33), src: makeInput([67, 90]) },
      ({ x, at, src }) => x.scatterAdd(1, at, src),
      { quick: true },
    ),
    makeCheck("gather", "one hot", { at: makeIndices([67], 9) }, ({ at }) => at.oneHot(9)),
    makeCheck(
      "embedding",
      "embedding",
      { table: makeInput([67, 33]), ids: makeIndices([3, 65], 67) },
      ({ table, ids }) => recordOp(() => session().embedding(table.id, ids.id, false, undefined)),
      { quick: true },
    ),
    makeCheck(
      "embedding",
      "embedding by columns",
      { table: makeInput([33, 67]), ids: makeIndices([3, 65], 67) },
      ({ table, ids }) => recordOp(() => session().embedding(table.id, ids.id, true, undefined)),
    ),
  ];
}
