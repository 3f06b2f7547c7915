/**
 * scaledDotProductAttention has the cost of a model's own attention: it launches the same kernels, and copies
 * nothing.
 */
import test from "ava";

import { manualSeed, nn, noGrad, randn, scope, tensor, type Tensor } from "../../src/index.js";
import { attend } from "../../src/models/attention.js";
import { session } from "../../src/native/binding.js";
import { testDevices, type TestDevice } from "../devices.js";

/** Returns launches by kernel of `run`, forward and backward. */
function launches(run: () => Tensor): Record<string, number> {
  const device = "meta:gpu";
  return scope(() => {
    session().countLaunches(device, true);
    run().sum().backward();
    return session().countLaunches(device, false);
  });
}

for (const [name, heads, options] of [
  ["as many heads", 8, {}],
  ["as many heads, causal", 8, { causal: true }],
  ["as many heads, causal, with dropout", 8, { causal: true, dropout: 0.1 }],
  ["shared heads", 2, {}],
  ["shared heads, causal", 2, { causal: true }],
  ["shared heads, with dropout", 2, { dropout: 0.1 }],
] as const) {
  test(`${name}: the launches of a model's attention, and no copies`, (t) => {
    const of = (...shape: number[]): Tensor => randn(shape, { device: "meta:gpu", requiresGrad: true });
    const [B, T, H, D] = [2, 96, 8, 64];
    const [q, k, v] = [of(B, T, H, D), of(B, T, heads, D), of(B, T, heads, D)];
    const own = launches(() => attend(q, k, v, options));
    const [q2, k2, v2] = [of(B, H, T, D), of(B, heads, T, D), of(B, heads, T, D)];
    const ours = launches(() => nn.scaledDotProductAttention(q2, k2, v2, options));
    const count = (all: Record<string, number>, kernel: RegExp): number =>
      Object.entries(all).reduce((n, [name, times]) => n + (kernel.test(name) ? times : 0), 0);
    t.true(count(own, /^attention/) >= 3, JSON.stringify(own));
    for (const kernel of Object.keys(own)) t.is(ours[kernel] ?? 0, own[kernel] as number, kernel);
    const total = (all: Record<string, number>): number => count(all, /./);
    t.is(total(ours), total(own), JSON.stringify(ours));
  });
}

for (const device of testDevices())
  test(`on ${device}: heads that share keys have the mask of their example`, async (t) => {
    manualSeed(3);
    const [B, H, shared, T, S, D] = [2, 4, 2, 5, 7, 8];
    const q = randn([B, H, T, D], { device });
    const [k, v] = [randn([B, shared, S, D], { device }), randn([B, shared, S, D], { device })];
    const hidden = Int32Array.from({ length: B * S }, (_, i) => (i % 3 === 0 ? 0 : 1));
    const mask = tensor(hidden, { shape: [B, 1, 1, S], device });
    const repeated = (x: Tensor): Tensor =>
      x
        .unsqueeze(2)
        .expand(B, shared, H / shared, S, D)
        .reshape(B, H, S, D);
    const [got, expected] = await Promise.all(
      [
        nn.scaledDotProductAttention(q, k, v, { mask }),
        nn.scaledDotProductAttention(q, repeated(k), repeated(v), { mask }),
      ].map((y) => y.data() as Promise<Float32Array>),
    );
    const off = (got as Float32Array).map((value, i) => Math.abs(value - (expected?.[i] as number)));
    t.true(Math.max(...off) <= 1e-5, String(Math.max(...off)));
  });

/**
 * Returns the weights of the next call after dropout: with an identity matrix as values the output is the weights.
 */
function droppedWeights(q: Tensor, k: Tensor, p: number, causal: boolean): Tensor {
  const [B, S, H, D] = k.shape as [number, number, number, number];
  const identity = Float32Array.from({ length: S * D }, (_, i) => (i % D === Math.floor(i / D) ? 1 : 0));
  const v = tensor(identity, { shape: [1, S, 1, D], device: q.device }).expand(B, S, H, D);
  return attend(q, k, v, { causal, dropout: p }).reshape(B, S, H, D).slice(3, 0, S);
}

for (const device of testDevices())
  for (const causal of [false, true])
    test(`on ${device}, causal ${causal}: dropout's values and gradients match stored scores`, async (t) => {
      const [B, S, H, D, p] = [2, 21, 3, 32, 0.3];
      manualSeed(5);
      const made = (): Tensor => randn([B, S, H, D], { device, requiresGrad: true });
      const [q, k, v, flow] = [made(), made(), made(), noGrad(made)];
      const masked = (draw: () => Tensor): Tensor => {
        manualSeed(9);
        return draw();
      };
      const mask = await maskOf(
        masked(() => noGrad(() => droppedWeights(q, k, p, causal))),
        q,
        k,
        causal,
      );
      t.true(mask.share > 0.2 && mask.share < 0.4, `${mask.share} of the weights are dropped`);
      const fused = masked(() => attend(q, k, v, { causal, dropout: p }).reshape(B, S, H, D));
      const expected = stored(q, k, v, causal, mask.factors(device));
      const all = async (y: Tensor): Promise<Float32Array[]> => {
        for (const x of [q, k, v]) x.grad = null;
        y.mul(flow).sum().backward();
        return Promise.all(
          [y, q.grad, k.grad, v.grad].map((x) => (x as Tensor).data() as Promise<Float32Array>),
        );
      };
      const [got, wanted] = [await all(fused), await all(expected)];
      for (const [i, values] of wanted.entries()) {
        const largest = Math.max(...values.map(Math.abs));
        // Sums of at most 32 products in f32, in another order.
        const off = Math.max(...values.map((value, j) => Math.abs(value - (got[i]?.[j] as number))));
        t.true(off <= 1e-5 * Math.max(1, largest), `${["y", "q", "k", "v"][i]}: ${off} of ${largest}`);
      }
    });

/** Returns the softmax of the scores [B, H, S, S]. */
function weightsOf(q: Tensor, k: Tensor, causal: boolean): Tensor {
  const [, S, , D] = q.shape as [number, number, number, number];
  const scores = q
    .transpose(1, 2)
    .mul(1 / Math.sqrt(D))
    .matmul(k.transpose(1, 2), { transB: true });
  if (!causal) return scores.softmax();
  const visible = Int32Array.from({ length: S * S }, (_, i) => (i % S <= Math.floor(i / S) ? 1 : 0));
  return scores.where(tensor(visible, { shape: [S, S], device: q.device }), -3e38).softmax();
}

/** Returns the dropout factors: the ratio of the weights with dropout to those without. */
async function maskOf(
  dropped: Tensor,
  q: Tensor,
  k: Tensor,
  causal: boolean,
): Promise<{ share: number; factors: (device: TestDevice) => Tensor }> {
  const [B, S, H] = q.shape as [number, number, number];
  const [weights, kept] = await Promise.all(
    [noGrad(() => weightsOf(q, k, causal)), dropped.transpose(1, 2)].map(
      (x) => x.data() as Promise<Float32Array>,
    ),
  );
  const values = (weights as Float32Array).map((weight, i) =>
    weight === 0 ? 0 : (kept?.[i] as number) / weight,
  );
  const seen = (weights as Float32Array).filter((weight) => weight > 0).length;
  const zeros = values.filter((value, i) => value === 0 && (weights?.[i] as number) > 0).length;
  // Each is 0 or 1 / (1 - p).
  const exact = values.map((value) => (value === 0 ? 0 : 1 / 0.7));
  if (values.some((value, i) => Math.abs(value - (exact[i] as number)) > 1e-4)) throw new Error("no mask");
  return { share: zeros / seen, factors: (device) => tensor(exact, { shape: [B, H, S, S], device }) };
}

function stored(q: Tensor, k: Tensor, v: Tensor, causal: boolean, factors: Tensor): Tensor {
  return weightsOf(q, k, causal).mul(factors).matmul(v.transpose(1, 2)).transpose(1, 2);
}
