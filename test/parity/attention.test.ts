/**
 * scaledDotProductAttention compared with PyTorch in float64 (README.md): the output, and the gradients of q, k, v
 * and of a float mask. Sums have some hundred terms, so 1e-5 of the largest value is a hundred roundings.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { nn, tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

const { cases } = JSON.parse(readFileSync(join(goldens, "attention.json"), "utf8")) as {
  cases: Record<string, { mask: boolean; options: nn.ScaledDotProductAttentionOptions }>;
};

for (const device of testDevices()) {
  for (const [name, { mask, options }] of Object.entries(cases)) {
    test(`attention: ${name} on ${device} is PyTorch's`, async (t) => {
      const host = await onHost(join(goldens, "attention.safetensors"));
      const of = (part: string, requiresGrad = false): Tensor => {
        const { data, shape } = host[`${name}.${part}`] as Golden;
        return tensor(data, { shape, device, requiresGrad });
      };
      const compare = async (part: string, ours: Tensor): Promise<void> => {
        const golden = host[`${name}.${part}`] as Golden;
        t.deepEqual(ours.shape, golden.shape, part);
        const off = error(await ours.data(), golden.data);
        t.true(off <= 1e-5, `${part}: ${off}`);
      };
      const leaves = { q: of("q", true), k: of("k", true), v: of("v", true) };
      const added = mask ? of("mask", `${name}.grad.mask` in host) : undefined;
      const { q, k, v } = leaves;
      const y = nn.scaledDotProductAttention(q, k, v, { ...options, mask: added });
      await compare("output", y);
      y.backward(of("d_out"));
      for (const [key, leaf] of Object.entries(leaves)) await compare(`grad.${key}`, leaf.grad as Tensor);
      if (added?.requiresGrad === true) await compare("grad.mask", added.grad as Tensor);
    });
  }
}

test("attention: dropout drops weights, and keeps their mean", async (t) => {
  for (const device of testDevices()) {
    const [B, H, T, S] = [2, 2, 33, 65];
    const q = tensor(new Float32Array(B * H * T * 4), { shape: [B, H, T, 4], device });
    const k = tensor(new Float32Array(B * H * S * 4), { shape: [B, H, S, 4], device });
    const v = tensor(new Float32Array(B * H * S).fill(1), { shape: [B, H, S, 1], device });
    // Weights are equal, so y is the share that is kept, over 1 − p.
    const y = (await nn.scaledDotProductAttention(q, k, v, { dropout: 0.25 }).data()) as Float32Array;
    const mean = y.reduce((a, b) => a + b, 0) / y.length;
    // Six standard deviations of a mean of B·H·T·S draws.
    t.true(Math.abs(mean - 1) < 6 * Math.sqrt(0.25 / 0.75 / (B * H * T * S)), `${mean} on ${device}`);
    t.true(new Set(y).size > 5, "rows drop different weights");
    // Values as wide as the keys take the fused kernel.
    for (const values of [v, v.expand(B, H, S, 4)]) {
      const none = await nn.scaledDotProductAttention(q, k, values, { dropout: 1 }).data();
      t.true(none.every((value) => value === 0));
    }
  }
});
