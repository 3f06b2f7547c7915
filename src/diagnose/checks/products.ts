/** Checks of matrix products, low-rank layers, convolutions, attention and rotary embeddings. */
import { session, type LowRankPath } from "../../native/binding.js";
import { runWithRandom } from "../../tensor/random.js";
import { withMatmulPrecision } from "../../tensor/scope.js";
import { recordOp, recordOps, type Tensor } from "../../tensor/tensor.js";
import { makeConstant, makeCheck, makeIndices, makeInput, type Check, type Input } from "./check.js";
import { F16_PRODUCTS } from "./tolerances.js";

export function listProductChecks(): Check[] {
  return [...listMatrices(), ...listLowRank(), ...listConvolutions(), ...listAttentions(), listRotary()];
}

function applyLinear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  return recordOp(() => session().linear(x.id, weight.id, bias?.id, false));
}

function listMatrices(): Check[] {
  const shapes: readonly [name: string, m: number, k: number, n: number, quick: boolean][] = [
    ["small", 5, 3, 7, false],
    ["odd", 67, 131, 69, true],
    ["one row", 1, 131, 257, true],
    ["one column", 131, 67, 1, false],
    ["large", 259, 133, 261, true],
    ["long sums", 9, 4099, 11, false],
  ];
  const plain = shapes.map(([name, m, k, n, quick]) =>
    makeCheck(
      "gemm",
      `product, ${name} (${m} × ${k} × ${n})`,
      { a: makeInput([m, k]), b: makeInput([k, n]) },
      ({ a, b }) => a.matmul(b),
      { quick },
    ),
  );
  const layer = { x: makeInput([2, 65, 131]), weight: makeInput([67, 131]), bias: makeInput([67]) };
  return [
    ...plain,
    makeCheck(
      "gemm",
      "products of a batch",
      { a: makeInput([3, 65, 33]), b: makeInput([3, 33, 31]) },
      ({ a, b }) => a.matmul(b),
    ),
    makeCheck("gemm", "linear layer", layer, (t) => applyLinear(t.x, t.weight, t.bias), { quick: true }),
    makeCheck(
      "gemm",
      "linear layer, weight in f16",
      { x: makeInput([65, 131]), weight: { ...makeConstant([67, 131]), dtype: "f16" } },
      (t) => applyLinear(t.x, t.weight),
      { quick: true, readsF16: true },
    ),
    makeCheck(
      "gemm",
      "linear layer, weight in bf16",
      { x: makeInput([65, 131]), weight: { ...makeConstant([67, 131]), dtype: "bf16" } },
      (t) => applyLinear(t.x, t.weight),
      { quick: true },
    ),
    makeCheck(
      "gemm",
      "linear layer, product in f16",
      { x: makeInput([65, 131]), weight: { ...makeConstant([67, 131]), dtype: "f16" } },
      (t) => withMatmulPrecision("f16", () => applyLinear(t.x, t.weight)),
      { tolerance: F16_PRODUCTS, readsF16: true },
    ),
  ];
}

/** Makes a low-rank path over all rows. */
function makePath(loraA: Tensor, loraB: Tensor, p = 0): LowRankPath {
  return { loraA: loraA.id, loraB: loraB.id, scale: 2, p, seed: 3, stream: 5, runs: [], windows: [] };
}

function listLowRank(): Check[] {
  const weight = makeConstant([67, 131]);
  const layer = { x: makeInput([65, 131]), weight, a: makeInput([8, 131]), b: makeInput([67, 8]) };
  return [
    makeCheck(
      "gemm",
      "low-rank layer",
      layer,
      (t) =>
        recordOp(() => session().loraLinear(t.x.id, t.weight.id, undefined, false, [makePath(t.a, t.b)])),
      { quick: true },
    ),
    makeCheck(
      "gemm",
      "low-rank layer with dropout",
      layer,
      (t) =>
        runWithRandom(5, () =>
          recordOp(() =>
            session().loraLinear(t.x.id, t.weight.id, undefined, false, [makePath(t.a, t.b, 0.2)]),
          ),
        ),
      { quick: true },
    ),
    makeCheck(
      "gemm",
      "two low-rank paths",
      { ...layer, c: makeInput([5, 131]), d: makeInput([67, 5]) },
      (t) =>
        recordOp(() =>
          session().loraLinear(t.x.id, t.weight.id, undefined, false, [
            makePath(t.a, t.b),
            makePath(t.c, t.d),
          ]),
        ),
    ),
    makeCheck(
      "embedding",
      "low-rank embedding",
      {
        table: makeConstant([67, 33]),
        ids: makeIndices([3, 65], 67),
        a: makeInput([4, 67]),
        b: makeInput([33, 4]),
      },
      (t) => recordOp(() => session().loraEmbedding(t.table.id, t.ids.id, t.a.id, t.b.id, 2, undefined)),
    ),
  ];
}

function listConvolutions(): Check[] {
  const conv = (
    name: string,
    x: Input,
    weight: Input,
    {
      stride,
      padding,
      dilation,
      groups = 1,
    }: { stride: number[]; padding: number[]; dilation: number[]; groups?: number },
    quick = false,
  ): Check =>
    makeCheck(
      "conv",
      name,
      { x, weight, bias: makeInput([weight.shape[0] as number]) },
      (t) =>
        recordOp(() => session().conv(t.x.id, t.weight.id, t.bias.id, stride, padding, dilation, groups)),
      { quick },
    );
  const pair = [1, 1];
  return [
    conv("convolution of a line", makeInput([2, 5, 67]), makeInput([7, 5, 3]), {
      stride: [2],
      padding: [1, 1],
      dilation: [1],
    }),
    conv(
      "convolution of images",
      makeInput([2, 5, 17, 19]),
      makeInput([7, 5, 3, 3]),
      {
        stride: pair,
        padding: [1, 1, 1, 1],
        dilation: pair,
      },
      true,
    ),
    conv("convolution with steps and groups", makeInput([2, 6, 17, 19]), makeInput([9, 2, 3, 2]), {
      stride: [2, 3],
      padding: [1, 0, 2, 1],
      dilation: [2, 1],
      groups: 3,
    }),
    conv("convolution of volumes", makeInput([1, 3, 7, 9, 5]), makeInput([4, 3, 3, 2, 3]), {
      stride: [1, 2, 1],
      padding: [1, 1, 0, 0, 1, 1],
      dilation: [1, 1, 1],
    }),
    makeCheck(
      "conv",
      "transposed convolution",
      { x: makeInput([2, 5, 9, 7]), weight: makeInput([5, 4, 3, 3]) },
      (t) =>
        recordOp(() => session().convTranspose(t.x.id, t.weight.id, [2, 2], [1, 1, 1, 1], [1, 0], pair, 1)),
    ),
  ];
}

function listAttentions(): Check[] {
  const heads = (T: number, H: number, D: number): Input => makeInput([2, T, H, D]);
  const attend = (
    q: Tensor,
    k: Tensor,
    v: Tensor,
    {
      mask,
      causal = true,
      window = 0,
      offset = 0,
    }: { mask?: Tensor; causal?: boolean; window?: number; offset?: number } = {},
  ): Tensor =>
    recordOp(() =>
      session().attention(
        q.id,
        k.id,
        v.id,
        mask?.id,
        causal,
        window,
        1 / Math.sqrt(q.shape[3] as number),
        offset,
        k.shape[1] as number,
      ),
    );
  const three = (T: number, H: number, kv: number, D: number): { q: Input; k: Input; v: Input } => ({
    q: heads(T, H, D),
    k: heads(T, kv, D),
    v: { ...heads(T, kv, D), ...makeConstant([2, T, kv, D], -0.9, 1.1), gradient: true },
  });
  return [
    makeCheck(
      "attention",
      "causal attention, heads of 32",
      three(65, 4, 2, 32),
      (t) => attend(t.q, t.k, t.v),
      {
        quick: true,
      },
    ),
    makeCheck(
      "attention",
      "causal attention, heads of 64",
      three(131, 3, 3, 64),
      (t) => attend(t.q, t.k, t.v),
      {
        quick: true,
      },
    ),
    makeCheck("attention", "causal attention, heads of 128", three(35, 2, 1, 128), (t) =>
      attend(t.q, t.k, t.v),
    ),
    makeCheck("attention", "attention, odd heads of 20", three(67, 2, 2, 20), (t) =>
      attend(t.q, t.k, t.v, { causal: false }),
    ),
    makeCheck("attention", "attention within a window", three(67, 4, 2, 32), (t) =>
      attend(t.q, t.k, t.v, { window: 9 }),
    ),
    makeCheck(
      "attention",
      "attention with a mask",
      { ...three(67, 4, 2, 32), mask: makeIndices([2, 67], 2) },
      (t) => attend(t.q, t.k, t.v, { causal: false, mask: t.mask }),
    ),
    makeCheck(
      "attention",
      "attention of one token",
      {
        q: makeConstant([2, 1, 4, 32]),
        k: makeConstant([2, 131, 2, 32]),
        v: makeConstant([2, 131, 2, 32], -0.9, 1.1),
      },
      (t) => attend(t.q, t.k, t.v, { offset: 130 }),
      { quick: true },
    ),
  ];
}

function listRotary(): Check {
  return makeCheck(
    "rotary",
    "rotary positions",
    {
      q: makeInput([2, 65, 3, 32]),
      k: makeInput([2, 65, 1, 32]),
      cos: makeConstant([128, 16]),
      sin: makeConstant([128, 16], -0.9, 0.9),
    },
    (t) => {
      const [q, k] = recordOps(() =>
        session().rotary([t.q.id, t.k.id], t.cos.id, t.sin.id, 3, undefined, 32),
      );
      return { q: q as Tensor, k: k as Tensor };
    },
    { quick: true },
  );
}
