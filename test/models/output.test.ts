/** The logits of a language model's output: computed when first read, with the state of the forward call. */
import test from "ava";
import {
  checkpoint,
  LlamaForCausalLM,
  lora,
  manualSeed,
  noGrad,
  optim,
  randn,
  scope,
  setMatmulPrecision,
  tensor,
  withMatmulPrecision,
  type CausalLM,
  type ForwardOutput,
  type Tensor,
} from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";

const [B, T, V] = [3, 5, 61];
const IDS = Int32Array.from({ length: B * T }, (_, i) => (i * 17) % V);

function drawn(device: TestDevice, dtype: "f32" | "bf16" = "f32"): LlamaForCausalLM {
  manualSeed(2);
  const config = {
    vocab_size: V,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    max_position_embeddings: 32,
    initializer_range: 0.3,
  };
  return LlamaForCausalLM.fromConfig(config, { device, dtype });
}

/**
 * Returns a model with a low-rank adapter on the head, an adapter with a separate head, and one that does not
 * change the head; the first is active.
 */
async function adapted(device: TestDevice): Promise<CausalLM> {
  const model = drawn(device);
  await lora.inject(model, { name: "low-rank", r: 2, targetModules: ["q_proj", "lm_head"] });
  await lora.inject(model, { name: "whole", r: 2, targetModules: ["q_proj"], modulesToSave: ["lm_head"] });
  await lora.inject(model, { name: "apart", r: 2, targetModules: ["v_proj"] });
  for (const name of ["low-rank", "whole", "apart"]) {
    lora.setAdapter(model, name, { trainable: true });
    noGrad(() =>
      scope(() => {
        for (const one of model.parameters())
          if (one.requiresGrad) one.copy(one.add(randn(one.shape, { device }).mul(0.2)));
      }),
    );
  }
  lora.setAdapter(model, "low-rank");
  return model;
}

const ids = (device: TestDevice): Tensor => tensor(IDS, { shape: [B, T], device });
const isMade = (out: ForwardOutput): boolean => Object.hasOwn(out, "logits");

for (const device of testDevices()) {
  test(`on ${device} logits are computed once, when they are read`, async (t) => {
    const model = drawn(device);
    const out = scope(() => model.forward(ids(device), { labels: IDS }));
    const { loss, hidden, ...rest } = { ...out };
    t.deepEqual(rest, {});
    t.deepEqual(Object.keys(out).sort(), ["hidden", "loss"]);
    t.is(JSON.parse(JSON.stringify({ keys: Object.keys(out) })).keys.length, 2);
    t.is(scope(() => [out])[0], out);
    t.false(isMade(out));
    const { logits } = out;
    t.deepEqual(logits.shape, [B, T, V]);
    t.is(out.logits, logits);
    t.is({ ...out }.logits, logits);
    t.is(out.loss, loss);
    t.deepEqual(await logits.data(), await model.lm_head.forward(hidden).data());
    t.false("loss" in model.forward(ids(device)));
    // Both at once, in any order.
    const { logits: first, loss: second } = model.forward(ids(device), { labels: IDS });
    t.true(Number.isFinite(await second?.item()));
    t.deepEqual(await first.data(), await logits.data());
    model.dispose();
  });

  test(`on ${device} logits use the adapters, gradient mode and precision of the forward call`, async (t) => {
    const model = await adapted(device);
    const modes: Record<string, (fn: () => ForwardOutput) => ForwardOutput> = {
      "with the active adapter": (fn) => fn(),
      "without gradients": noGrad,
      "without adapters": (fn) => lora.withoutAdapters(model, fn),
    };
    const other: Record<string, (fn: () => Tensor) => Tensor> = {
      plainly: (fn) => fn(),
      "in noGrad": noGrad,
      "in withoutAdapters": (fn) => lora.withoutAdapters(model, fn),
    };
    for (const active of ["low-rank", "whole"]) {
      lora.setAdapter(model, active);
      for (const [mode, within] of Object.entries(modes)) {
        let at: Tensor | undefined;
        within(() => {
          const out = model.forward(ids(device));
          at = out.logits;
          return out;
        });
        const expected = await (at as Tensor).data();
        for (const [place, read] of Object.entries(other)) {
          const out = within(() => model.forward(ids(device)));
          const logits = read(() => out.logits);
          t.deepEqual(await logits.data(), expected, `${active}: ${mode}, read ${place}`);
          t.is(logits.requiresGrad, (at as Tensor).requiresGrad, `${active}: ${mode}, read ${place}`);
        }
      }
      const adapterPerRow = ["low-rank", "whole", null];
      const at = model.forward(ids(device), { adapterPerRow }).logits;
      const later = lora.withoutAdapters(model, () => model.forward(ids(device), { adapterPerRow }));
      const plain = model.forward(ids(device), { adapterPerRow });
      t.deepEqual(await plain.logits.data(), await at.data(), `${active}: by row`);
      t.true(later.logits.shape[0] === B);
    }
    model.dispose();
  });

  test(`on ${device} logits live as long as the output of forward`, async (t) => {
    const model = drawn(device);
    const returned = scope(() => scope(() => ({ out: model.forward(ids(device)) }))).out;
    const expected = await returned.logits.data();
    // Read in a scope nested in the scope of the forward call.
    const outer = await scope(async () => {
      const out = model.forward(ids(device));
      scope(() => void out.logits);
      t.false(out.logits.disposed);
      t.deepEqual(await out.logits.data(), expected);
      return out;
    });
    t.deepEqual(await outer.logits.data(), expected);
    // Not read before the scope ends, and returned with the output.
    const read = scope(() => {
      const out = model.forward(ids(device));
      t.true(out.logits.requiresGrad);
      return out;
    });
    t.deepEqual(await read.logits.data(), expected);
    const recomputed = checkpoint(() => model.forward(ids(device), { labels: IDS }));
    t.deepEqual(await recomputed.logits.data(), expected);
    // Logits read later belong to the scope that is open then.
    let late: Tensor | undefined;
    scope(() => {
      late = scope(() => model.forward(ids(device))).logits;
    });
    t.true(late?.disposed);
    let left: ForwardOutput | undefined;
    scope(() => {
      left = model.forward(ids(device));
    });
    t.throws(() => left?.logits, { code: "ERR_DISPOSED", message: /return the output from it/ });
    model.dispose();
  });

  test(`on ${device} logits carry gradients, and a changed head is an error`, async (t) => {
    const model = drawn(device);
    const gradients = async (loss: () => Tensor): Promise<number[]> => {
      for (const one of model.parameters()) one.grad = null;
      scope(() => loss().backward());
      const all: number[] = [];
      for (const one of model.parameters()) all.push(...((await one.grad?.data()) ?? [NaN]));
      return all;
    };
    const eager = await gradients(() => {
      const hidden = model.computeHidden(ids(device));
      return model.lm_head.forward(hidden).mul(0.1).sum();
    });
    const lazy = await gradients(() => model.forward(ids(device)).logits.mul(0.1).sum());
    t.deepEqual(lazy, eager);
    const again = await gradients(() => {
      const out = checkpoint(() => model.forward(ids(device)));
      return out.logits.mul(0.1).sum();
    });
    t.deepEqual(again, eager);
    const changed = { code: "ERR_MODIFIED", message: /the head has changed since forward/ };
    const optimizer = new optim.SGD([...model.parameters()], { lr: 0.1 });
    const out = scope(() => {
      const made = model.forward(ids(device), { labels: IDS });
      made.loss?.backward();
      return made;
    });
    optimizer.step();
    t.throws(() => out.logits, changed);
    optimizer.dispose();
    model.dispose();

    const several = await adapted(device);
    const before = several.forward(ids(device));
    lora.setAdapter(several, "apart");
    t.throws(() => before.logits, changed);
    lora.setAdapter(several, "low-rank");
    const after = several.forward(ids(device));
    await lora.merge(several);
    t.throws(() => after.logits, changed);
    lora.unmerge(several);
    // A frozen head that stays the same is no change.
    lora.setAdapter(several, "apart");
    const kept = several.forward(ids(device));
    lora.setAdapter(several, []);
    t.notThrows(() => kept.logits);
    several.dispose();
  });
}

test("products in bf16 use the precision of the forward call", async (t) => {
  manualSeed(2);
  const model = drawn("cpu", "bf16");
  const read = (fn: () => ForwardOutput): Promise<ArrayLike<number>> => scope(fn).logits.data();
  const forward = (): ForwardOutput => model.forward(ids("cpu"));
  const [exact, rounded] = [
    await scope(() => forward().logits).data(),
    await withMatmulPrecision("bf16", () => scope(() => forward().logits)).data(),
  ];
  t.notDeepEqual(rounded, exact);
  t.deepEqual(await read(() => withMatmulPrecision("bf16", forward)), rounded);
  const out = scope(forward);
  setMatmulPrecision("bf16");
  t.deepEqual(await out.logits.data(), exact);
  setMatmulPrecision("exact");
  model.dispose();
});
