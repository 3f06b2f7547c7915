/** scaledDotProductAttention costs what a model's own attention costs: it launches the same kernels, and copies nothing. */
import test from "ava";

import { nn, randn, scope, type Tensor } from "../../src/index.js";
import { attention } from "../../src/models/attention.js";
import { session } from "../../src/native.js";

/** Launches by kernel of `run`, forward and backward. */
function launches(run: () => Tensor): Record<string, number> {
  const device = "meta:gpu";
  return scope(() => {
    session().countLaunches(device, true);
    run().sum().backward();
    return session().countLaunches(device, false);
  });
}

for (const [name, heads, options, copies] of [
  ["as many heads", 8, {}, 0],
  ["as many heads, causal", 8, { causal: true }, 0],
  ["shared heads", 2, {}, 0],
  // Queries, the output, and the gradients of both.
  ["shared heads, causal", 2, { causal: true }, 4],
] as const) {
  test(`${name}: the launches of a model's attention, and ${copies} copies`, (t) => {
    const of = (...shape: number[]): Tensor => randn(shape, { device: "meta:gpu", requiresGrad: true });
    const [B, T, H, D] = [2, 96, 8, 64];
    const [q, k, v] = [of(B, T, H, D), of(B, T, heads, D), of(B, T, heads, D)];
    const own = launches(() => attention(q, k, v, options));
    const [q2, k2, v2] = [of(B, H, T, D), of(B, heads, T, D), of(B, heads, T, D)];
    const ours = launches(() => nn.scaledDotProductAttention(q2, k2, v2, options));
    const count = (all: Record<string, number>, kernel: RegExp): number =>
      Object.entries(all).reduce((n, [name, times]) => n + (kernel.test(name) ? times : 0), 0);
    t.true(count(own, /^attention/) >= 3, JSON.stringify(own));
    for (const kernel of Object.keys(own)) t.is(ours[kernel] ?? 0, own[kernel] as number, kernel);
    const total = (all: Record<string, number>): number => count(all, /./);
    t.is(total(ours) - total(own), copies, JSON.stringify(ours));
  });
}
