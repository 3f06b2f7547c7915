/** The same seed gives the same initialisation, for layers of many sizes and in any order of completion. */
import test from "ava";

import { arange, lora, manualSeed, nn, tensor, type Tensor } from "../../src/index.js";

/** Large layers first, so that later ones complete before them. */
const SIZES = [300, 40, 200, 30, 20, 100, 10, 50, 12, 24];

class Stack extends nn.Sequential {
  constructor() {
    super(...SIZES.map((size, i) => new nn.Linear(SIZES[i - 1] ?? 8, size, { device: "cpu" })));
  }
}

async function drawn(init: lora.InitLoraWeights): Promise<number[][]> {
  manualSeed(3);
  const model = new Stack();
  const evaData = [
    arange(8 * 64, { dtype: "f32", device: "cpu" })
      .sin()
      .reshape(64, 8),
  ];
  await lora.inject(model, {
    r: 4,
    targetModules: "all-linear",
    initLoraWeights: init,
    ...(init === "eva" && { evaData, evaConfig: { rho: 1 } }),
  });
  const factors: number[][] = [];
  for (const [name, one] of model.namedParameters() as Iterable<[string, Tensor]>)
    if (name.includes("lora_")) factors.push([...(await one.data())]);
  // Later draws are the same, too.
  factors.push([...(await tensor([1, 2, 3, 4, 5, 6, 7, 8], { device: "cpu" }).dropout().data())]);
  model.dispose();
  return factors;
}

for (const init of [
  true,
  false,
  "gaussian",
  "orthogonal",
  "olora",
  "pissa",
  "pissa_niter_2",
  "eva",
] as const) {
  test.serial(`by ${String(init)}`, async (t) => {
    const first = await drawn(init);
    t.is(first.length, 2 * SIZES.length + 1);
    for (let again = 0; again < 5; again++) t.deepEqual(await drawn(init), first);
  });
}
