import test from "ava";
import { lora, memory, nn, optim, scope, synchronize, tensor, type Tensor } from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";

const START = [1, -2, 3];

function parameter(device: "cpu" | "gpu", values: readonly number[] = START): Tensor {
  return tensor(values, { device, requiresGrad: true });
}

/** Runs one step on the sum of `weights` · p, whose gradient is `weights`. */
function step(optimizer: { step(): void; zeroGrad(): void }, p: Tensor, weights: readonly number[]): void {
  scope(() =>
    p
      .mul(tensor(weights, { device: p.device }))
      .sum()
      .backward(),
  );
  optimizer.step();
  optimizer.zeroGrad();
}

async function values(p: Tensor): Promise<number[]> {
  return [...(await p.data())];
}

/** Returns the result of `torch.optim.AdamW` for one element, in f64. */
function adamw(
  p: number,
  grads: readonly number[],
  { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.01 } = {},
): number {
  let [m, v] = [0, 0];
  for (const [i, g] of grads.entries()) {
    p *= 1 - lr * decay;
    m += (1 - beta1) * (g - m);
    v = beta2 * v + (1 - beta2) * g * g;
    const denominator = Math.sqrt(v) / Math.sqrt(1 - beta2 ** (i + 1)) + eps;
    p -= (lr / (1 - beta1 ** (i + 1))) * (m / denominator);
  }
  return p;
}

// Values of about 1 in f32: a few roundings of 6e-8.
const CLOSE = 1e-6;

for (const device of testDevices()) {
  test(`AdamW on ${device} is PyTorch's`, async (t) => {
    const p = parameter(device);
    const optimizer = new optim.AdamW([p], { lr: 0.1 });
    const grads = [
      [1, 0.5, -2],
      [-1, 4, 0],
    ];
    for (const g of grads) step(optimizer, p, g);
    const expected = START.map((start, i) =>
      adamw(
        start,
        grads.map((g) => g[i] as number),
        { lr: 0.1 },
      ),
    );
    for (const [i, value] of (await values(p)).entries())
      t.true(Math.abs(value - (expected[i] as number)) < CLOSE);
    optimizer.dispose();
    p.dispose();
  });

  test(`SGD on ${device}: momentum and Nesterov`, async (t) => {
    const p = parameter(device, [1]);
    const optimizer = new optim.SGD([p], { lr: 0.1, momentum: 0.9, nesterov: true });
    step(optimizer, p, [1]);
    step(optimizer, p, [1]);
    // d + μb: 1.9, then 1 + 0.9 · 1.9.
    t.true(Math.abs(((await values(p))[0] as number) - (1 - 0.19 - 0.271)) < CLOSE);
    optimizer.dispose();
    p.dispose();
  });

  test(`groups on ${device} have separate rates, which may change between steps`, async (t) => {
    const [a, b] = [parameter(device, [0]), parameter(device, [0])];
    const optimizer = new optim.SGD([{ params: [a], lr: 1 }, { params: [b] }], { lr: 0.5 });
    const both = (): void => {
      scope(() => a.add(b).sum().backward());
      optimizer.step();
      optimizer.zeroGrad();
    };
    both();
    t.deepEqual([await values(a), await values(b)], [[-1], [-0.5]]);
    for (const group of optimizer.groups) group.lr = 0;
    both();
    t.deepEqual([await values(a), await values(b)], [[-1], [-0.5]]);
    optimizer.dispose();
    for (const one of [a, b]) one.dispose();
  });

  test(`a state that is exported and loaded on ${device} continues with the same bits`, async (t) => {
    const [one, two] = [parameter(device), parameter(device)];
    const first = new optim.AdamW([one], { lr: 0.1 });
    for (const g of [1, 2]) step(first, one, [g, -g, 3]);
    two.copy(one);
    const second = new optim.AdamW([two], { lr: 0.3 });
    const state = first.stateDict();
    t.is(state.state[0]?.step, 2);
    second.loadStateDict(state);
    for (const [optimizer, p] of [
      [first, one],
      [second, two],
    ] as const)
      step(optimizer, p, [3, 1, -1]);
    t.deepEqual(await values(two), await values(one));
    const other = new optim.AdamW([parameter(device), parameter(device)]);
    t.throws(() => other.loadStateDict(state), { code: "ERR_SHAPE_MISMATCH" });
    for (const optimizer of [first, second, other]) optimizer.dispose();
  });

  test(`clipping on ${device}: the norm before clipping, gradients scaled together`, async (t) => {
    const [a, b] = [parameter(device, [3]), parameter(device, [4])];
    scope(() => a.mul(a).add(b.mul(b)).mul(0.5).sum().backward());
    const norm = optim.clipGradNorm([a, b], 1);
    t.is(await norm.item(), 5);
    const grads = await Promise.all([a, b].map(async (p) => (await (p.grad as Tensor).data())[0] as number));
    t.true(Math.abs((grads[0] as number) - 0.6) < CLOSE && Math.abs((grads[1] as number) - 0.8) < CLOSE);
  });

  test.serial(`on ${device} only the step that is not finite is skipped, with one warning`, async (t) => {
    const warnings: NodeJS.ErrnoException[] = [];
    const hear = (warning: Error): void => void warnings.push(warning);
    process.on("warning", hear);
    try {
      for (const make of [
        (p: Tensor) => new optim.AdamW([p], { lr: 0.1 }),
        (p: Tensor) => new optim.SGD([p], { lr: 0.1, momentum: 0.9, dampening: 0.5 }),
      ]) {
        const [p, q] = [parameter(device), parameter(device)];
        const [one, other] = [make(p), make(q)];
        warnings.length = 0;
        const steps = [
          [1, 2, 3],
          [1, Number.NaN, 1],
          [4, 5, -6],
          [Infinity, 1, 1],
          [Number.NaN, 1, 1],
          [0.5, 1, 2],
          [-1, 1, 0],
        ];
        for (const [i, g] of steps.entries()) {
          const finite = g.every(Number.isFinite);
          const before = await values(p);
          step(one, p, g);
          if (finite) step(other, q, g);
          else t.deepEqual(await values(p), before);
          // The middle steps are not awaited, so their skips are reported later.
          if (i < 3 || i > 5) await values(p);
        }
        await new Promise((resolve) => setImmediate(resolve));
        t.is(one.skipped, 3);
        t.is(other.skipped, 0);
        t.true(warnings.length >= 2 && warnings.every(({ code }) => code === "ERR_NOT_FINITE"));
        t.regex(
          warnings[0]?.message ?? "",
          /^(AdamW|SGD): a step was left out, since its gradients were not finite/,
        );
        const expected = await values(q);
        for (const [i, value] of (await values(p)).entries())
          t.true(Math.abs(value - (expected[i] as number)) < CLOSE, `${value}, ${expected[i]}`);
        const counts = [one, other].map((optimizer) => optimizer.stateDict().state[0]?.step);
        t.is(counts[0], counts[1]);
        one.dispose();
        other.dispose();
      }
    } finally {
      process.off("warning", hear);
    }
  });

  test.serial(`on ${device} values that are awaited together report each skipped step once`, async (t) => {
    const p = parameter(device);
    const optimizer = new optim.AdamW([p], { lr: 0.1 });
    const reads: Promise<unknown>[] = [];
    for (const g of [
      [Number.NaN, 1, 1],
      [1, Infinity, 1],
      [1, 1, 1],
      [1, 1, Number.NaN],
    ]) {
      step(optimizer, p, g);
      reads.push(values(p));
    }
    await Promise.all(reads);
    t.is(optimizer.skipped, 3);
    t.is(optimizer.stateDict().state[0]?.step, 1);
    step(optimizer, p, [Number.NaN, 1, 1]);
    await synchronize(device);
    t.is(optimizer.skipped, 4);
    optimizer.dispose();
  });

  test(`a latched step that is not finite skips all later ones on ${device}, until recover()`, async (t) => {
    const p = parameter(device);
    const optimizer = new optim.AdamW([p], { lr: 0.1 });
    const latched = {
      step: (): void => optimizer.stepLatched(undefined).dispose(),
      zeroGrad: (): void => optimizer.zeroGrad(),
    };
    step(latched, p, [1, 1, Number.NaN]);
    step(latched, p, [1, 1, 1]);
    t.deepEqual(await values(p), START);
    t.is(await optimizer.recover(), 2);
    step(optimizer, p, [1, 1, 1]);
    const expected = START.map((start) => adamw(start, [1], { lr: 0.1 }));
    for (const [i, value] of (await values(p)).entries())
      t.true(Math.abs(value - (expected[i] as number)) < CLOSE);
    t.is(await optimizer.recover(), 0);
    optimizer.dispose();
  });

  test.serial(
    `an optimizer's state on ${device} survives the scope in which it was created, and dispose() frees it`,
    async (t) => {
      const p = parameter(device);
      const before = (await atRest(device)).live;
      const optimizer = scope(() => {
        const inner = new optim.AdamW([p], { lr: 0.1 });
        step(inner, p, [1, 1, 1]);
        return { inner };
      }).inner;
      step(optimizer, p, [1, 1, 1]);
      t.is(
        scope(() => optimizer.stateDict().state[0]?.step),
        2,
      );
      optimizer.dispose();
      t.throws(() => optimizer.step(), { code: "ERR_DISPOSED" });
      p.dispose();
      t.true(memory(device).live <= before);
    },
  );
}

test("options out of range are refused", (t) => {
  const p = parameter("cpu");
  t.throws(() => new optim.AdamW([p], { lr: -1 }), { code: "ERR_OPTION", message: /lr/ });
  t.throws(() => new optim.AdamW([p], { betas: [1, 0.9] }), { code: "ERR_OPTION" });
  t.throws(() => new optim.SGD([p], { nesterov: true }), { code: "ERR_OPTION" });
  t.throws(() => new optim.AdamW([]), { code: "ERR_OPTION" });
  t.throws(() => optim.clipGradNorm([p], Number.NaN), { code: "ERR_OPTION" });
});

test("LoRA+: B has a higher rate, and embeddings a separate one", (t) => {
  class Model extends nn.Module {
    embed = new lora.Embedding(5, 4, { r: 2 });
    head = new lora.Linear(4, 3, { r: 2 });
    forward(): void {}
  }
  const model = new Model();
  lora.markOnlyLoraAsTrainable(model, "all");
  const groups = optim.loraPlusGroups(model, { lr: 1e-3, ratio: 16 });
  t.deepEqual(
    groups.map(({ params, lr, weightDecay }) => [
      [...params].map(({ shape }) => [...shape]),
      lr,
      weightDecay,
    ]),
    [
      [[[2, 4]], 1e-3, undefined],
      [
        [
          [2, 5],
          [4, 2],
        ],
        1e-6,
        undefined,
      ],
      [[[3, 2]], 16e-3, undefined],
      [[[3]], 16e-3, 0],
    ],
  );
});
