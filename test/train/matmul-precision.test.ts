import test from "ava";
import {
  checkpoint,
  finetune,
  nn,
  randn,
  setMatmulPrecision,
  type Tensor,
  withMatmulPrecision,
  type FinetuneOptions,
  type LowrankError,
} from "../../src/index.js";
import { tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const made = { model: tinyModel(), data: tinyData() };

/** A frozen layer that is stored as bf16, and rows for it. */
function layer(): { linear: nn.Linear; x: Tensor } {
  const linear = new nn.Linear(33, 17, { weight: randn([17, 33]).to("bf16"), bias: false });
  linear.weight.requiresGrad = false;
  return { linear, x: randn([12, 33], { requiresGrad: true }) };
}

// By itself: what it sets is set for all.
test.serial("the precision of products follows the call, and what it is set to", async (t) => {
  const { linear, x } = layer();
  const y = async (): Promise<string> => String(await linear.forward(x).data());
  const exact = await y();
  const inside = async (): Promise<string> => {
    await Promise.resolve();
    return y();
  };
  const [rounded, beside] = await Promise.all([withMatmulPrecision("bf16", inside), inside()]);
  t.not(rounded, exact);
  t.is(beside, exact);
  t.is(await y(), exact);
  setMatmulPrecision("bf16");
  try {
    t.is(await y(), rounded);
    t.is(await withMatmulPrecision("exact", y), exact);
  } finally {
    setMatmulPrecision("exact");
  }
  t.is(await y(), exact);
  const refused = t.throws<LowrankError>(() => setMatmulPrecision("tf32" as "bf16"));
  t.is(refused.code, "ERR_OPTION");
  t.throws(() => withMatmulPrecision("" as "bf16", () => 0), { code: "ERR_OPTION" });
});

test("backward and a checkpoint multiply as forward was recorded", async (t) => {
  const { linear, x } = layer();
  const gradient = async (forward: (x: Tensor) => Tensor): Promise<string> => {
    x.grad = null;
    // What flows in depends on what forward gave.
    const y = withMatmulPrecision("bf16", () => forward(x));
    y.mul(y).sum().backward();
    return String(await (x.grad as unknown as Tensor).data());
  };
  const plain = await gradient((x) => linear.forward(x));
  t.is(await gradient((x) => checkpoint(() => linear.forward(x))), plain);
  x.grad = null;
  const y = linear.forward(x);
  y.mul(y).sum().backward();
  t.not(String(await (x.grad as unknown as Tensor).data()), plain);
});

test("losses in bf16 stay within 2e-3 of f32's", async (t) => {
  const losses = async (more: Partial<FinetuneOptions>): Promise<number[]> => {
    const run = finetune(quick(made, "cpu", { optimizer: { lr: 1e-3 }, steps: 10, ...more }));
    const events = await collect(run);
    const [start] = events;
    t.true(start?.type === "start" && start.matmulPrecision === (more.matmulPrecision ?? "exact"));
    return events.filter((event) => event.type === "step").map(({ loss }) => loss);
  };
  const plain = await losses({ dtype: "f32" });
  const exact = await losses({ dtype: "bf16" });
  const rounded = await losses({ dtype: "bf16", matmulPrecision: "bf16" });
  t.is(plain.length, 10);
  t.notDeepEqual(rounded, exact);
  for (const [i, loss] of plain.entries()) {
    t.true(Math.abs((rounded[i] as number) - loss) <= 2e-3 * loss, `step ${i}: ${rounded[i]} for ${loss}`);
  }
});

test("a run in bf16 that is resumed keeps its products and ends with the same bits", async (t) => {
  const given: Partial<FinetuneOptions> = { dtype: "bf16", steps: 6, saveEvery: 3 };
  const whole = quick(made, "cpu", { ...given, matmulPrecision: "bf16" });
  await finetune(whole).result;
  const cut = quick(made, "cpu", { ...given, matmulPrecision: "bf16" });
  const run = finetune(cut);
  for await (const event of run) if (event.type === "step" && event.step === 2) void run.stop();
  t.true((await run.result).stopped);
  const refused = finetune({ ...cut, matmulPrecision: "exact", resume: true }).result;
  await t.throwsAsync(refused, {
    code: "ERR_OPTION",
    message: /resume: matmulPrecision was bf16, and is exact now/,
  });
  await finetune({ ...cut, matmulPrecision: undefined as never, resume: true }).result;
  t.true(adapterBytes(whole.output as string).equals(adapterBytes(cut.output as string)));
});
