/** Merging again and again changes no bit of the base, whatever it is stored as; any geometry merges to what runs apart. */
import test from "ava";
import fc from "fast-check";

import { lora, manualSeed, nn, noGrad, randn, scope, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { error } from "../parity/goldens.js";
import { subjects, type Layer } from "./subjects.js";

const TIMES = 1000;

function randomise(layer: Layer): void {
  noGrad(() =>
    scope(() => {
      for (const { loraA, loraB } of layer.adapters.values())
        for (const part of [loraA, loraB]) part.copy(randn(part.shape, { device: part.device }));
    }),
  );
}

async function off(ours: Tensor, expected: Tensor): Promise<number> {
  return error(await ours.data(), await expected.data());
}

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

  test(`MergedLinear on ${device}: any enableLora merges to what runs apart, and is a plain adapter`, async (t) => {
    const sizes = fc.record({
      enableLora: fc
        .array(fc.boolean(), { minLength: 1, maxLength: 5 })
        .filter((slices) => slices.includes(true)),
      width: fc.integer({ min: 1, max: 9 }),
      inFeatures: fc.integer({ min: 1, max: 17 }),
      r: fc.integer({ min: 1, max: 6 }),
      loraAlpha: fc.integer({ min: 1, max: 9 }),
      rows: fc.integer({ min: 1, max: 5 }),
      fanInFanOut: fc.boolean(),
      useRslora: fc.boolean(),
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
      const { r, loraAlpha, loraA, loraB } = layer.plainAdapter("default");
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
      // Sums of at most 17 + 30 products of numbers around 1.
      const asPlain = await off(plain.forward(x), apart);
      return asPlain < 1e-5 && (await off(layer.merge().forward(x), apart)) < 1e-5;
    };
    manualSeed(5);
    await fc.assert(fc.asyncProperty(sizes, holds), { numRuns: 60, seed: 1 });
    t.pass();
  });
}
