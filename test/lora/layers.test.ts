/** Options, state and refusals of the layers, and behaviour of dropout and DoRA that no golden covers. */
import test from "ava";

import {
  checkpoint,
  lora,
  LowrankError,
  manualSeed,
  nn,
  noGrad,
  randn,
  scope,
  tensor,
  type Tensor,
} from "../../src/index.js";
import { listParts } from "../../src/lora/layers/layer.js";
import { testDevices } from "../devices.js";
import { error } from "../parity/goldens.js";
import { subjects, type Layer } from "./subjects.js";

function randomise(layer: Layer): void {
  noGrad(() =>
    scope(() => {
      for (const adapter of layer.adapters.values())
        for (const [, part] of listParts(adapter)) part.copy(randn(part.shape, { device: part.device }));
    }),
  );
}

const run = (layer: nn.Module, x: Tensor): Tensor => (layer.forward as (x: Tensor) => Tensor).call(layer, x);

async function off(ours: Tensor, expected: Tensor): Promise<number> {
  return error(await ours.data(), await expected.data());
}

test("senseless options are refused", (t) => {
  const refused: [() => unknown, RegExp][] = [
    [
      () => new lora.MergedLinear(4, 6, { r: 1, enableLora: [true, false, true, false] }),
      /4 slices.*6 outputs/,
    ],
    [() => new lora.MergedLinear(4, 6, { r: 1, enableLora: [] }), /0 slices/],
    [() => new lora.MergedLinear(4, 6, { r: 1.5, enableLora: [true] }), /r must be a whole number/],
    [
      () => new lora.MergedLinear(4, 6, { r: 1, enableLora: [true, false], useDora: true }),
      /\(useDora\): they would also change/,
    ],
    [
      () => new lora.MergedLinear(4, 6, { r: 1, enableLora: [true, false], loraBias: true }),
      /\(loraBias\): they would also change/,
    ],
    [() => new lora.Linear(4, 6, { r: 1, useDora: true, loraBias: true }), /loraBias with useDora/],
    [() => new lora.Linear(4, 6, { r: -1 }), /r must be a whole number/],
    [() => new lora.Linear(4, 6, { r: 1, loraDropout: 2 }), /loraDropout must be a number from 0 to 1/],
    [() => new lora.Embedding(4, 6, { r: 1, loraBias: true }), /loraBias on embeddings/],
    [() => new lora.Embedding(4, 6, { r: 1, loraDropout: 0.5 } as object), /ids cannot be dropped/],
    [() => new lora.Embedding(4, 6, { r: 1, maxNorm: 1 } as object), /maxNorm/],
    [() => new lora.Embedding(4, 6, { r: 1, paddingIdx: 4 }), /paddingIdx 4 is none of 4 rows/],
    [() => new lora.Embedding(4, 6, { r: 1, paddingIdx: -5 }), /paddingIdx -5/],
    [() => new lora.Conv2d(4, 6, 3, { r: -1 }), /lora.Conv2d: r must be a whole number/],
    [() => new lora.Conv2d(4, 6, 3, { r: 1, loraDropout: -1 }), /loraDropout must be a number from 0 to 1/],
  ];
  for (const [make, message] of refused)
    t.like(t.throws(make, { instanceOf: LowrankError, message }), { code: "ERR_OPTION" });
});

for (const device of testDevices()) {
  for (const subject of subjects) {
    test(`${subject.name} on ${device}: fromBase shares the weights and freezes them`, (t) => {
      const base = subject.base(device);
      const layer = subject.wrap(base, 2, 3);
      t.is(layer.weight, base.weight);
      t.false(layer.weight.requiresGrad);
      if ("bias" in base) t.is((layer as nn.Linear).bias, base.bias);
    });

    test(`${subject.name} on ${device}: checkpointing changes no gradient of an adapter`, async (t) => {
      manualSeed(6);
      const layer = subject.wrap(subject.base(device), 2, 3);
      randomise(layer);
      const x = subject.input(device);
      const gradients = async (forward: () => Tensor): Promise<ArrayLike<number>[]> => {
        const y = forward();
        y.mul(y).sum().backward();
        const all = listParts([...layer.adapters.values()][0] as lora.Adapter).map(([, part]) => part);
        const read = await Promise.all(all.map((part) => (part.grad as Tensor).data()));
        for (const part of all) part.grad = null;
        return read;
      };
      const plain = await gradients(() => run(layer, x));
      t.true(plain.every((gradient) => Array.from(gradient).some((v) => v !== 0)));
      t.deepEqual(await gradients(() => checkpoint(() => run(layer, x))), plain);
    });

    test(`${subject.name} on ${device}: deltaWeight equals the change by merging, for one adapter or all`, async (t) => {
      manualSeed(8);
      const layer = subject.wrap(subject.base(device), 2, 3);
      layer.addAdapter("other", layer.createAdapter({ ...subject.fresh, r: 3, loraAlpha: 2 }));
      randomise(layer);
      const base = layer.weight;
      t.deepEqual(layer.deltaWeight("other").shape, base.shape);
      t.throws(() => layer.deltaWeight("third"), { message: /"third".*"default", "other"/ });
      const sum = layer.deltaWeight();
      if (!subject.fresh?.useDora)
        t.true((await off(layer.deltaWeight("default").add(layer.deltaWeight("other")), sum)) < 1e-6);
      t.true((await off(base.add(sum), layer.merge().weight)) < 1e-6);
      layer.unmerge().dispose();
    });
  }

  test(`a MergedLinear without enabled slices is plain and frozen on ${device}`, async (t) => {
    const layer = new lora.MergedLinear(4, 6, { r: 2, enableLora: [false, false], device });
    const plain = new nn.Linear(4, 6, { device, weight: layer.weight, biasValues: layer.bias as Tensor });
    const x = randn([3, 4], { device });
    t.deepEqual(await layer.forward(x).data(), await plain.forward(x).data());
    t.deepEqual(Object.keys(layer.stateDict()), ["weight", "bias"]);
    t.deepEqual(layer.deltaWeight().shape, [6, 4]);
    t.true((await layer.deltaWeight().data()).every((v) => v === 0));
    t.false(layer.weight.requiresGrad);
    t.true(layer.eval() === layer && !layer.merged);
    t.throws(() => layer.createAdapter({ r: 1, loraAlpha: 1 }), { message: /enables nothing/ });
  });

  test(`dropout applies to the low-rank path, with DoRA by DoRA's rule, on ${device}`, async (t) => {
    for (const useDora of [false, true]) {
      manualSeed(1);
      const layer = new lora.Linear(9, 6, { r: 3, loraAlpha: 5, loraDropout: 0.5, useDora, device });
      randomise(layer);
      const x = randn([8, 9], { device });
      manualSeed(2);
      const dropped = x.dropout(0.5);
      const { loraA, loraB, magnitude } = layer.adapters.get("default") as lora.Adapter;
      const low = dropped.matmul(loraA, { transB: true }).matmul(loraB, { transB: true }).mul(layer.scaling);
      const product = (given: Tensor): Tensor => given.matmul(layer.weight, { transB: true });
      const plain = product(x).add(layer.bias as Tensor);
      const norm = layer.weight.add(layer.deltaWeight("default"));
      const c = magnitude?.div(norm.mul(norm).sum(1).sqrt());
      const expected =
        c === undefined ? plain.add(low) : plain.add(product(dropped).mul(c.sub(1))).add(low.mul(c));
      manualSeed(2);
      t.true((await off(layer.forward(x), expected)) < 1e-5);
      manualSeed(2);
      t.true((await off(layer.eval().unmerge().forward(x), plain)) > 0.01);
    }
  });

  test(`several adapters have separate dropout masks, several DoRA ones rescale in turn, on ${device}`, async (t) => {
    manualSeed(3);
    const layer = new lora.Linear(9, 6, { r: 2, loraAlpha: 5, useDora: true, device });
    layer.addAdapter("plain", layer.createAdapter({ r: 3, loraAlpha: 2 }));
    layer.addAdapter("third", layer.createAdapter({ r: 1, loraAlpha: 2, useDora: true }));
    randomise(layer);
    const x = randn([8, 9], { device });
    const apart = layer.forward(x);
    t.true((await off(layer.merge().forward(x), apart)) < 1e-5);
    layer.unmerge();

    const two = new lora.Linear(64, 6, { r: 2, loraDropout: 0.5, device });
    two.addAdapter("other", two.createAdapter({ r: 2, loraAlpha: 2, loraDropout: 0.9 }));
    randomise(two);
    const given = randn([1, 64], { device });
    manualSeed(4);
    const y = two.forward(given);
    manualSeed(4);
    const parts = [...two.adapters.values()].map(({ loraA, loraB, scaling, loraDropout }) =>
      given.dropout(loraDropout).matmul(loraA, { transB: true }).matmul(loraB, { transB: true }).mul(scaling),
    ) as [Tensor, Tensor];
    const plain = given.matmul(two.weight, { transB: true }).add(two.bias as Tensor);
    t.true((await off(y, plain.add(parts[0]).add(parts[1]))) < 1e-5);
  });

  test(`DoRA's norms follow a weight that is overwritten, and are freed with the adapter, on ${device}`, async (t) => {
    manualSeed(9);
    const base = new nn.Linear(9, 6, { device });
    const layer = lora.Linear.fromBase(base, { r: 2, useDora: true });
    randomise(layer);
    const x = randn([4, 9], { device });
    layer.forward(x).dispose();
    const other = randn([6, 9], { device });
    layer.weight.copy(other);
    const fresh = lora.Linear.fromBase(
      new nn.Linear(9, 6, { weight: other, biasValues: base.bias as Tensor }),
    );
    fresh.addAdapter("default", layer.adapters.get("default") as lora.Adapter);
    t.deepEqual(await layer.forward(x).data(), await fresh.forward(x).data());
    const squares = layer.squaredNorms?.squares;
    layer.removeAdapter("default");
    t.true(squares?.disposed);
  });

  test(`a bias of the low-rank product is merged into the layer's bias, or becomes it, on ${device}`, async (t) => {
    for (const bias of [true, false]) {
      manualSeed(5);
      const layer = new lora.Linear(9, 6, { r: 2, loraAlpha: 6, loraBias: true, bias, device });
      randomise(layer);
      const own = layer.bias;
      const x = randn([4, 9], { device });
      const apart = layer.forward(x);
      const keys = Object.keys(layer.stateDict());
      layer.merge();
      t.true((await off(layer.forward(x), apart)) < 1e-5);
      t.not(layer.bias, own);
      t.deepEqual(Object.keys(layer.stateDict()), keys);
      t.is(layer.stateDict()["bias"], own ?? undefined);
      t.is(layer.unmerge().bias, own);
    }
  });

  test(`a padding row of an embedding gets no gradient on ${device}`, async (t) => {
    const layer = new lora.Embedding(5, 3, { r: 2, paddingIdx: -4, device });
    t.is(layer.paddingIdx, 1);
    randomise(layer);
    const ids = tensor(Int32Array.of(0, 1, 4, 1), { device });
    layer.forward(ids).sum().backward();
    const gradient = await ((layer.loraA as Tensor).grad as Tensor).data();
    t.deepEqual(
      Array.from({ length: 5 }, (_, column) => gradient[column] !== 0 || gradient[5 + column] !== 0),
      [true, false, false, false, true],
    );
  });

  test(`a convolution's dropout applies to its low-rank path, and every padding mode to both paths, on ${device}`, async (t) => {
    for (const paddingMode of ["zeros", "reflect", "replicate", "circular"] as const) {
      manualSeed(1);
      const base = new nn.Conv2d(3, 4, [2, 3], { padding: "same", paddingMode, device });
      const layer = lora.Conv2d.fromBase(base, { r: 2, loraAlpha: 3, loraDropout: 0.5 });
      t.true(layer instanceof lora.ConvLoRA && !(base instanceof lora.ConvLoRA));
      t.deepEqual(layer.geometry, base.geometry);
      randomise(layer);
      const x = randn([2, 3, 4, 5], { device });
      const delta = layer.deltaWeight("default");
      const low = new nn.Conv2d(3, 4, [2, 3], { padding: "same", paddingMode, weight: delta });
      manualSeed(2);
      const expected = base.forward(x).add(low.forward(x.dropout(0.5)));
      manualSeed(2);
      t.true((await off(layer.forward(x), expected)) < 1e-5, paddingMode);
      t.true((await off(layer.eval().forward(x), base.forward(x).add(low.forward(x)))) < 1e-5, paddingMode);
      layer.train();
    }
  });

  test(`a grouped convolution's adapter over all channels runs, and cannot be merged, on ${device}`, async (t) => {
    manualSeed(1);
    const layer = new lora.Conv1d(4, 6, 3, { r: 2, groups: 2, device });
    for (const part of ["A", "B"] as const)
      layer.replacePart("default", part, randn(layer.computeStoredShape(part, 2), { device }));
    const x = randn([2, 4, 5], { device });
    const before = await layer.forward(x).data();
    t.throws(() => layer.merge(), { message: /lora.Conv1d: merging .*\(2 groups\)/ });
    t.false(layer.merged);
    t.deepEqual(await layer.forward(x).data(), before);
    t.is(layer.buildPlainAdapter("default"), layer.findAdapter("default"));
    const dora = new lora.Conv1d(4, 6, 3, { r: 2, groups: 2, useDora: true, device });
    t.throws(() => dora.buildPlainAdapter("default"), {
      message: /2 groups\): PEFT's form mixes the groups and has no equivalent/,
    });
  });
}
