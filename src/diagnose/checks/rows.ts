/** Checks of kernels that work on rows: reductions, norms, softmax, losses, sorting, pooling. */
import { session } from "../../native/binding.js";
import { AvgPool2d, AdaptiveAvgPool2d, MaxPool2d } from "../../nn/index.js";
import { recordOp, recordOps, type Tensor } from "../../tensor/tensor.js";
import { makeConstant, makeCheck, makeIndices, makeInput, type Check } from "./check.js";

const ROWS = [3, 67, 131];

export function listRowChecks(): Check[] {
  return [...listReductions(), ...listNorms(), ...listSoftmaxes(), ...listOrders(), ...listPools()];
}

function listReductions(): Check[] {
  const over = (name: string, f: (x: Tensor, dim?: number) => Tensor, quick: boolean): Check[] => [
    makeCheck("reduce", `${name} of rows`, { x: makeInput(ROWS) }, ({ x }) => f(x, 2), { quick }),
    makeCheck("reduce", `${name} of columns`, { x: makeInput(ROWS) }, ({ x }) => f(x, 0), { quick }),
    makeCheck("reduce", `${name} of all`, { x: makeInput([257, 259]) }, ({ x }) => f(x)),
  ];
  return [
    ...over("sum", (x, dim) => x.sum(dim), true),
    ...over("mean", (x, dim) => x.mean(dim), false),
    ...over("maximum", (x, dim) => x.max(dim), false),
    ...over("minimum", (x, dim) => x.min(dim), false),
    makeCheck(
      "reduce",
      "places of the maximum and the minimum",
      { x: makeConstant(ROWS) },
      ({ x }) => ({ rows: x.argmax(2), columns: x.argmin(0), all: x.argmax() }),
      { quick: true },
    ),
  ];
}

function listNorms(): Check[] {
  const [weight, bias] = [makeInput([131], 0.5, 1.5), makeInput([131])];
  return [
    makeCheck(
      "norm",
      "RMS norm",
      { x: makeInput(ROWS), weight },
      (t) => recordOp(() => session().rmsNorm(t.x.id, t.weight.id, 1e-5)),
      { quick: true },
    ),
    makeCheck(
      "norm",
      "layer norm",
      { x: makeInput(ROWS), weight, bias },
      (t) => recordOp(() => session().layerNorm(t.x.id, t.weight.id, t.bias.id, 1e-5)),
      { quick: true },
    ),
    makeCheck("norm", "layer norm without weights", { x: makeInput(ROWS) }, (t) =>
      recordOp(() => session().layerNorm(t.x.id, undefined, undefined, 1e-5)),
    ),
    makeCheck(
      "norm",
      "residual sum and RMS norm",
      { x: makeInput(ROWS), r: makeInput(ROWS), weight },
      (t) => {
        const [sum, norm] = recordOps(() => session().addedRmsNorm(t.x.id, t.r.id, t.weight.id, 1e-5));
        return { sum: sum as Tensor, norm: norm as Tensor };
      },
      { quick: true },
    ),
    makeCheck(
      "norm",
      "residual sum and layer norm",
      { x: makeInput(ROWS), r: makeInput(ROWS), weight, bias },
      (t) => {
        const [sum, norm] = recordOps(() =>
          session().addedLayerNorm(t.x.id, t.r.id, t.weight.id, t.bias.id, 1e-5),
        );
        return { sum: sum as Tensor, norm: norm as Tensor };
      },
    ),
  ];
}

function listSoftmaxes(): Check[] {
  const logits = makeInput([67, 131], -5, 5);
  const targets = makeIndices([67], 131);
  return [
    makeCheck("softmax", "softmax over rows", { x: makeInput(ROWS, -5, 5) }, ({ x }) => x.softmax(-1), {
      quick: true,
    }),
    makeCheck("softmax", "softmax over columns", { x: makeInput(ROWS, -5, 5) }, ({ x }) => x.softmax(0), {
      quick: true,
    }),
    makeCheck("softmax", "log softmax over rows", { x: makeInput(ROWS, -5, 5) }, ({ x }) => x.logSoftmax(-1)),
    makeCheck("softmax", "log softmax over columns", { x: makeInput(ROWS, -5, 5) }, ({ x }) =>
      x.logSoftmax(1),
    ),
    makeCheck(
      "cross_entropy",
      "cross-entropy",
      { logits, targets },
      (t) => t.logits.crossEntropy(t.targets, { labelSmoothing: 0.1 }),
      { quick: true },
    ),
    makeCheck("cross_entropy", "cross-entropy of each row", { logits, targets }, (t) =>
      t.logits.crossEntropy(t.targets, { reduction: "none" }),
    ),
    makeCheck(
      "cross_entropy",
      "cross-entropy of a head",
      {
        hidden: makeInput([67, 33]),
        weight: makeInput([521, 33]),
        bias: makeInput([521]),
        targets: makeIndices([67], 521),
      },
      (t) =>
        recordOp(() =>
          session().linearCrossEntropy(t.hidden.id, t.weight.id, t.targets.id, t.bias.id, -100, 0, "mean"),
        ),
      { quick: true },
    ),
  ];
}

function listOrders(): Check[] {
  return [
    makeCheck("scan", "running sums of rows", { x: makeInput([67, 131]) }, ({ x }) => x.cumsum(1), {
      quick: true,
    }),
    makeCheck("scan", "running sums of columns", { x: makeInput([131, 67]) }, ({ x }) => x.cumsum(0)),
    makeCheck(
      "recurrence",
      "running products",
      { x: makeInput([33, 67], 0.8, 1.2) },
      ({ x }) => x.cumprod(1),
      { quick: true },
    ),
    makeCheck(
      "sort",
      "sort of rows",
      { x: makeInput([5, 131]) },
      ({ x }) => {
        const { values, indices: order } = x.sort(1);
        return { values, order };
      },
      { quick: true },
    ),
    makeCheck("sort", "sort of long rows", { x: makeConstant([2, 5003]) }, ({ x }) => {
      const { values, indices: order } = x.sort(1, { descending: true });
      return { values, order };
    }),
    makeCheck("sort", "the largest of rows", { x: makeConstant([67, 131]) }, ({ x }) => {
      const { values, indices: order } = x.topk(9, 1);
      return { values, order };
    }),
    makeCheck(
      "sample",
      "choice of tokens",
      { logits: makeConstant([9, 521], -6, 6) },
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

function listPools(): Check[] {
  const image = makeInput([2, 3, 17, 19]);
  return [
    makeCheck(
      "pool",
      "maximum pool",
      { x: image },
      ({ x }) => new MaxPool2d(3, { stride: 2, padding: 1 }).forward(x),
      { quick: true },
    ),
    makeCheck(
      "pool",
      "mean pool",
      { x: image },
      ({ x }) => new AvgPool2d(3, { stride: 2, padding: 1 }).forward(x),
      { quick: true },
    ),
    makeCheck("pool", "adaptive mean pool", { x: image }, ({ x }) =>
      new AdaptiveAvgPool2d([5, 4]).forward(x),
    ),
  ];
}
