/**
 * Repeated merging changes no bit of the base, for any storage type; any geometry gives the same output merged and
 * unmerged.
 */
import test from "ava";
import fc from "fast-check";

import { lora, manualSeed, nn, noGrad, randn, scope, tensor, type Tensor } from "../../src/index.js";
import { convolve } from "../../src/nn/convolution.js";
import { listParts } from "../../src/lora/layers/layer.js";
import { testDevices } from "../devices.js";
import { error } from "../parity/goldens.js";
import { subjects, type Layer } from "./subjects.js";

const TIMES = 1000;

function randomise(layer: Layer): void {
  noGrad(() =>
    scope(() => {
      for (const adapter of layer.adapters.values())
        for (const [, part] of listParts(adapter)) part.copy(randn(part.shape, { device: part.device }));
    }),
  );
}

async function off(ours: Tensor, expected: Tensor): Promise<number> {
  return error(await ours.data(), await expected.data());
}

const ranks = {
  r: fc.integer({ min: 1, max: 5 }),
  loraAlpha: fc.integer({ min: 1, max: 9 }),
  useRslora: fc.boolean(),
};

for (const device of testDevices()) {
  for (const subject of subjects) {
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      test(`${subject.name} in ${dtype} on ${device}: ${TIMES} merges leave the base's bits`, async (t) => {
        manualSeed(3);
        const base = subject.base(device);
        base.weight = base.weight.detach().to(dtype);
        const layer = subject.wrap(base, 3, 4);
        randomise(layer);
        const [own, before] = [layer.weight, await layer.weight.data()];
        layer.merge();
        const merged = await layer.weight.data();
        t.notDeepEqual(merged, before);
        for (let i = 1; i < TIMES; i++) layer.unmerge().merge();
        t.deepEqual(await layer.weight.data(), merged);
        layer.unmerge();
        t.is(layer.weight, own);
        t.deepEqual(await layer.weight.data(), before);
      });
    }
  }

  test(`MergedLinear on ${device}: any enableLora gives the same output merged, and equals a plain adapter`, async (t) => {
    const sizes = fc.record({
      enableLora: fc
        .array(fc.boolean(), { minLength: 1, maxLength: 5 })
        .filter((slices) => slices.includes(true)),
      width: fc.integer({ min: 1, max: 9 }),
      inFeatures: fc.integer({ min: 1, max: 17 }),
      rows: fc.integer({ min: 1, max: 5 }),
      fanInFanOut: fc.boolean(),
      ...ranks,
    });
    const holds = async ({
      width,
      inFeatures,
      rows,
      ...options
    }: typeof sizes extends fc.Arbitrary<infer T> ? T : never): Promise<boolean> => {
      const out = width * options.enableLora.length;
      const layer = new lora.MergedLinear(inFeatures, out, { ...options, device });
      randomise(layer);
      const x = randn([rows, inFeatures], { device });
      const apart = layer.forward(x);
      const { r, loraAlpha, loraA, loraB } = layer.buildPlainAdapter("default");
      const plain = lora.Linear.fromBase(
        new nn.Linear(inFeatures, out, {
          device,
          weight: layer.weight,
          fanInFanOut: options.fanInFanOut,
          ...(layer.bias ? { biasValues: layer.bias } : {}),
        }),
        { r, loraAlpha, useRslora: options.useRslora },
      );
      noGrad(() => {
        plain.loraA?.copy(loraA);
        plain.loraB?.copy(loraB);
      });
      // Sums of at most 17 + 25 products of numbers around 1.
      const asPlain = await off(plain.forward(x), apart);
      return asPlain < 1e-5 && (await off(layer.merge().forward(x), apart)) < 1e-5;
    };
    manualSeed(5);
    await fc.assert(fc.asyncProperty(sizes, holds), { numRuns: 60, seed: 1 });
    t.pass();
  });

  test(`Conv on ${device}: any geometry gives the same output merged, by its definition, and as PEFT's adapter`, async (t) => {
    const perDim = (min: number, max: number): fc.Arbitrary<number[]> =>
      fc.array(fc.integer({ min, max }), { minLength: 3, maxLength: 3 });
    const sizes = fc.record({
      dims: fc.integer({ min: 1, max: 3 }),
      kernel: perDim(1, 3),
      stride: perDim(1, 3),
      padding: perDim(0, 2),
      dilation: perDim(1, 2),
      over: perDim(0, 3),
      groups: fc.integer({ min: 1, max: 3 }),
      channels: fc.integer({ min: 1, max: 2 }),
      outputs: fc.integer({ min: 1, max: 2 }),
      ...ranks,
    });
    const holds = async (given: typeof sizes extends fc.Arbitrary<infer V> ? V : never): Promise<boolean> => {
      const { dims, groups, channels, outputs, r, loraAlpha, useRslora } = given;
      const [kernel, stride, padding, dilation, over] = (
        ["kernel", "stride", "padding", "dilation", "over"] as const
      ).map((name) => given[name].slice(0, dims)) as [number[], number[], number[], number[], number[]];
      const Conv = [lora.Conv1d, lora.Conv2d, lora.Conv3d][dims - 1] as typeof lora.Conv1d;
      const geometry = { stride, padding, dilation, groups, device };
      const layer = new Conv(channels * groups, outputs * groups, kernel, {
        ...geometry,
        r,
        loraAlpha,
        useRslora,
      });
      randomise(layer);
      // At least the smallest input that the kernel allows.
      const least = kernel.map((k, d) =>
        Math.max(1, (dilation[d] as number) * (k - 1) + 1 - 2 * (padding[d] as number)),
      );
      const x = randn([2, channels * groups, ...least.map((n, d) => n + (over[d] as number))], { device });
      const apart = layer.forward(x);

      const [a, b, w] = await Promise.all(
        [layer.loraA, layer.loraB, layer.weight].map((one) => (one as Tensor).data()),
      );
      const taps = (w as Float32Array).length / (outputs * groups);
      const sum = Float32Array.from(w as Float32Array, (value, i) => {
        const [o, tap] = [Math.floor(i / taps), i % taps];
        let delta = 0;
        for (let k = 0; k < r; k++)
          delta += (b as Float32Array)[o * r + k]! * (a as Float32Array)[k * taps + tap]!;
        return value + layer.scaling * delta;
      });
      const weight = tensor(sum, { shape: layer.weight.shape, device });
      const defined = convolve(x, weight, layer.bias, layer.geometry);

      const plain = layer.buildPlainAdapter("default");
      const same = new Conv(channels * groups, outputs * groups, kernel, geometry);
      same.addAdapter("default", plain);
      same.weight.copy(layer.weight);
      same.bias?.copy(layer.bias as Tensor);
      // Sums of at most 54 products, each of a sum of 5; numbers around 1.
      return (
        (await off(apart, defined)) < 1e-5 &&
        (await off(same.forward(x), defined)) < 1e-5 &&
        (await off(layer.merge().forward(x), defined)) < 1e-5
      );
    };
    manualSeed(6);
    await fc.assert(fc.asyncProperty(sizes, holds), { numRuns: 80, seed: 2 });
    t.pass();
  });
}
