import test from "ava";
import {
  checkpoint,
  type Device,
  finetune,
  LlamaForCausalLM,
  loadModel,
  lora,
  manualSeed,
  nn,
  optim,
  randn,
  saveModel,
  scope,
  setMatmulPrecision,
  type StorageType,
  type Tensor,
  tensor,
  withMatmulPrecision,
  type FinetuneOptions,
  type LowrankError,
  type MatmulPrecision,
} from "../../src/index.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const made = { model: tinyModel(), data: tinyData() };

/** Returns a frozen layer stored as bf16, and rows for it. */
function layer(): { linear: nn.Linear; x: Tensor } {
  const linear = new nn.Linear(33, 17, { weight: randn([17, 33]).to("bf16"), bias: false });
  linear.weight.requiresGrad = false;
  return { linear, x: randn([12, 33], { requiresGrad: true }) };
}

// Serial: the setting is global.
test.serial("the precision of products is taken from the call, then from the global setting", async (t) => {
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
  t.regex(refused.message, /precision must be exact, bf16 or f16, got "tf32"/);
  t.throws(() => withMatmulPrecision("" as "bf16", () => 0), { code: "ERR_OPTION" });
});

test("backward and checkpointing use the precision that forward was recorded with", async (t) => {
  const { linear, x } = layer();
  const gradient = async (forward: (x: Tensor) => Tensor): Promise<string> => {
    x.grad = null;
    // The incoming gradient depends on the output of forward.
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
    const start = events.find(({ type }) => type !== "progress");
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

test("a resumed run in bf16 keeps its precision and ends with the same bits", async (t) => {
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

/** Returns a model whose layers are large enough for products in f16. */
async function largerModel(): Promise<string> {
  manualSeed(5);
  const model = LlamaForCausalLM.fromConfig(
    {
      vocab_size: 131,
      hidden_size: 72,
      intermediate_size: 150,
      num_hidden_layers: 1,
      num_attention_heads: 4,
      num_key_value_heads: 4,
      max_position_embeddings: 64,
      eos_token_id: 0,
    },
    { device: "cpu" },
  );
  const folder = temporary();
  await saveModel(model, folder, { overwrite: true });
  return folder;
}

/** Returns losses and norms of ten steps of 3 × 32 tokens. */
async function tenSteps(
  folder: string,
  device: Device,
  dtype: StorageType,
  precision: MatmulPrecision,
): Promise<{ loss: number; norm: number }[]> {
  const model = await loadModel(folder, { device, dtype });
  manualSeed(7);
  await lora.inject(model, { r: 4, loraAlpha: 8, targetModules: "all-linear" });
  const trained = [...model.train().parameters()].filter(({ requiresGrad }) => requiresGrad);
  const optimizer = new optim.AdamW(trained, { lr: 1e-2 });
  const ids = Int32Array.from({ length: 96 }, (_, i) => (i * 31 + (i % 7)) % 131);
  const steps: { loss: number; norm: number }[] = [];
  for (let step = 0; step < 10; step++) {
    const loss = withMatmulPrecision(precision, () =>
      scope(() => (model as LlamaForCausalLM).loss(tensor(ids, { shape: [3, 32], device }), ids)),
    );
    loss.backward();
    const norm = optimizer.stepClipped(1);
    optimizer.zeroGrad();
    steps.push({ loss: await loss.item(), norm: await norm.item() });
    loss.dispose();
  }
  return steps;
}

for (const device of testDevices())
  for (const dtype of ["f32", "f16", "bf16"] as const)
    // Serial: the weights are drawn from the shared random stream.
    test.serial(
      `losses by ${dtype} weights with products in f16 on ${device} stay within 2e-3 of f32's`,
      async (t) => {
        const folder = await largerModel();
        const exact = await tenSteps(folder, device, dtype, "exact");
        const rounded = await tenSteps(folder, device, dtype, "f16");
        if (dtype === "f32")
          t.deepEqual(await tenSteps(folder, device, dtype, "f16"), rounded, "the same in every run");
        t.true((exact.at(-1)?.loss as number) < (exact[0]?.loss as number), "it learns");
        let off = 0;
        for (const [i, { loss, norm }] of rounded.entries()) {
          const { loss: want, norm: wantNorm } = exact[i] as { loss: number; norm: number };
          off = Math.max(off, Math.abs(loss - want) / want);
          t.true(
            Math.abs(norm - wantNorm) <= 1e-2 * wantNorm,
            `step ${i}: a norm of ${norm} for ${wantNorm}`,
          );
        }
        t.true(off <= 2e-3, `losses are off by ${off}`);
        // A device without f16 products computes in f32; one with them must be seen to use them.
        const x = randn([96, 72], { device });
        const y = async (precision: MatmulPrecision): Promise<string> =>
          String(await withMatmulPrecision(precision, () => linear.forward(x)).data());
        const linear = new nn.Linear(72, 96, { bias: false, device });
        const rounds = (await y("f16")) !== (await y("exact"));
        t.is(off > 0, rounds);
        if (device === "cpu") t.false(rounds);
        t.log(`losses are off by ${off.toExponential(1)}, products ${rounds ? "" : "not "}in f16`);
      },
    );

test("a run reports that products in f16 were requested", async (t) => {
  for (const device of testDevices()) {
    const events = await collect(finetune(quick(made, device, { steps: 2, matmulPrecision: "f16" })));
    const start = events.find(({ type }) => type !== "progress");
    t.true(start?.type === "start" && start.matmulPrecision === "f16");
  }
});
