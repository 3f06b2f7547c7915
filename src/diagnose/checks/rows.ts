/** Checks of kernels that work on rows: reductions, norms, softmax, losses, sorting, pooling. */
import { session } from "../../native/binding.js";
import { AvgPool2d, AdaptiveAvgPool2d, MaxPool2d } from "../../nn/index.js";
import { recordOp, recordOps, type Tensor } from "../../tensor/tensor.js";
import { constant, differentiable, indices, input, type Check } from "./check.js";

const ROWS = [3, 67, 131];

export function rowChecks(): Check[] {
  return [...reductions(), ...norms(), ...softmaxes(), ...orders(), ...pools()];
}

function reductions(): Check[] {
  const over = (name: string, f: (x: Tensor, dim?: number) => Tensor, quick: boolean): Check[] => [
    differentiable("reduce", `${name} of rows`, { x: input(ROWS) }, ({ x }) => f(x, 2), { quick }),
    differentiable("reduce", `${name} of columns`, { x: input(ROWS) }, ({ x }) => f(x, 0), { quick }),
    differentiable("reduce", `${name} of all`, { x: input([257, 259]) }, ({ x }) => f(x)),
  ];
  return [
    ...over("sum", (x, dim) => x.sum(dim), true),
    ...over("mean", (x, dim) => x.mean(dim), false),
    ...over("maximum", (x, dim) => x.max(dim), false),
    ...over("minimum", (x, dim) => x.min(dim), false),
    differentiable(
      "reduce",
      "places of the maximum and the minimum",
      { x: constant(ROWS) },
      ({ x }) => ({ rows: x.argmax(2), columns: x.argmin(0), all: x.argmax() }),
      { quick: true },
    ),
  ];
}

function norms(): Check[] {
  const [weight, bias] = [input([131], 0.5, 1.5), input([131])];
  return [
    differentiable(
      "norm",
      "RMS norm",
      { x: input(ROWS), weight },
      (t) => recordOp(() => session().rmsNorm(t.x.id, t.weight.id, 1e-5)),
      { quick: true },
    ),
    differentiable(
      "norm",
      "layer norm",
      { x: input(ROWS), weight, bias },
      (t) => recordOp(() => session().layerNorm(t.x.id, t.weight.id, t.bias.id, 1e-5)),
      { quick: true },
    ),
    differentiable("norm", "layer norm without weights", { x: input(ROWS) }, (t) =>
      recordOp(() => session().layerNorm(t.x.id, undefined, undefined, 1e-5)),
    ),
    differentiable(
      "norm",
      "residual sum and RMS norm",
      { x: input(ROWS), r: input(ROWS), weight },
      (t) => {
        const [sum, norm] = recordOps(() => session().addedRmsNorm(t.x.id, t.r.id, t.weight.id, 1e-5));
        return { sum: sum as Tensor, norm: norm as Tensor };
      },
      { quick: true },
    ),
    differentiable(
      "norm",
      "residual sum and layer norm",
      { x: input(ROWS), r: input(ROWS), weight, bias },
      (t) => {
        const [sum, norm] = recordOps(() =>
          session().addedLayerNorm(t.x.id, t.r.id, t.weight.id, t.bias.id, 1e-5),
        );
        return { sum: sum as Tensor, norm: norm as Tensor };
      },
    ),
  ];
}

function softmaxes(): Check[] {
  const logits = input([67, 131], -5, 5);
  const targets = indices([67], 131);
  return [
    differentiable("softmax", "softmax over rows", { x: input(ROWS, -5, 5) }, ({ x }) => x.softmax(-1), {
      quick: true,
    }),
    differentiable("softmax", "softmax over columns", { x: input(ROWS, -5, 5) }, ({ x }) => x.softmax(0), {
      quick: true,
    }),
    differentiable("softmax", "log softmax over rows", { x: input(ROWS, -5, 5) }, ({ x }) =>
      x.logSoftmax(-1),
    ),
    differentiable("softmax", "log softmax over columns", { x: input(ROWS, -5, 5) }, ({ x }) =>
      x.logSoftmax(1),
    ),
    differentiable(
      "cross_entropy",
      "cross-entropy",
      { logits, targets },
      (t) => t.logits.crossEntropy(t.targets, { labelSmoothing: 0.1 }),
      { quick: true },
    ),
    differentiable("cross_entropy", "cross-entropy of each row", { logits, targets }, (t) =>
      t.logits.crossEntropy(t.targets, { reduction: "none" }),
    ),
    differentiable(
      "cross_entropy",
      "cross-entropy of a head",
      { hidden: input([67, 33]), weight: input([521, 33]), bias: input([521]), targets: indices([67], 521) },
      (t) =>
        recordOp(() =>
          session().linearCrossEntropy(t.hidden.id, t.weight.id, t.targets.id, t.bias.id, -100, 0, "mean"),
        ),
      { quick: true },
    ),
  ];
}

function orders(): Check[] {
  return [
    differentiable("scan", "running sums of rows", { x: input([67, 131]) }, ({ x }) => x.cumsum(1), {
      quick: true,
    }),
    differentiable("scan", "running sums of columns", { x: input([131, 67]) }, ({ x }) => x.cumsum(0)),
    differentiable(
      "recurrence",
      "running products",
      { x: input([33, 67], 0.8, 1.2) },
      ({ x }) => x.cumprod(1),
      { quick: true },
    ),
    differentiable(
      "sort",
      "sort of rows",
      { x: input([5, 131]) },
      ({ x }) => {
        const { values, indices: order } = x.sort(1);
        return { values, order };
      },
      { quick: true },
    ),
    differentiable("sort", "sort of long rows", { x: constant([2, 5003]) }, ({ x }) => {
      const { values, indices: order } = x.sort(1, { descending: true });
      return { values, order };
    }),
    differentiable("sort", "the largest of rows", { x: constant([67, 131]) }, ({ x }) => {
      const { values, indices: order } = x.topk(9, 1);
      return { values, order };
    }),
    differentiable(
      "sample",
      "choice of tokens",
      { logits: constant([9, 521], -6, 6) },
      ({ logits }) => {
        // Each row: seed, draw, temperature, top k, top p, min p, repetition penalty.
        const rows = Array.from({ length: 9 }, (_, i) => [i + 1, 3, 0.8, 40, 0.95, 0, 1]);
        const [tokens, places] = recordOps(() =>
          session().sample(logits.id, undefined, Float64Array.from(rows.flat())),
        );
        return { tokens: tokens as Tensor, places: places as Tensor };
      },
      { quick: true },
    ),
  ];
}

function pools(): Check[] {
  const image = input([2, 3, 17, 19]);
  return [
    differentiable(
      "pool",
      "maximum pool",
      { x: image },
      ({ x }) => new MaxPool2d(3, { stride: 2, padding: 1 }).forward(x),
      { quick: true },
    ),
    differentiable(
      "pool",
      "mean pool",
      { x: image },
      ({ x }) => new AvgPool2d(3, { stride: 2, padding: 1 }).forward(x),
      { quick: true },
    ),
    differentiable("pool", "adaptive mean pool", { x: image }, ({ x }) =>
      new AdaptiveAvgPool2d([5, 4]).forward(x),
    ),
  ];
}
