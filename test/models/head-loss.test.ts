/**
 * The loss of a language model, which never materialises all logits, compared with the cross-entropy of the logits.
 */
import test, { type ExecutionContext } from "ava";
import {
  Gemma3ForCausalLM,
  LlamaForCausalLM,
  lora,
  manualSeed,
  memory,
  nn,
  noGrad,
  randn,
  scope,
  tensor,
  type CausalLM,
  type LossOptions,
  type Tensor,
} from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { testDevices, type TestDevice } from "../devices.js";
import { error } from "../parity/goldens.js";

const V = 97;
const IGNORED = -100;

const sizes = {
  vocab_size: V,
  hidden_size: 24,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 700,
  initializer_range: 0.3,
};

/** Returns a model with logits of up to about 40, capped. */
function capped(device: TestDevice, cap: number): Gemma3ForCausalLM {
  manualSeed(5);
  const changes = {
    num_key_value_heads: 1,
    head_dim: 12,
    final_logit_softcapping: cap,
    initializer_range: 1,
  };
  return Gemma3ForCausalLM.fromConfig({ ...sizes, ...changes }, { device });
}

function drawn(device: TestDevice | "meta:cpu", changes: object = {}): LlamaForCausalLM {
  manualSeed(5);
  return LlamaForCausalLM.fromConfig({ ...sizes, ...changes }, { device });
}

/** Moves every trained tensor away from its initial value. */
function shaken<M extends nn.Module>(model: M, device: TestDevice): M {
  noGrad(() =>
    scope(() => {
      for (const one of model.parameters())
        if (one.requiresGrad) one.copy(one.add(randn(one.shape, { device }).mul(0.2)));
    }),
  );
  return model;
}

const q = { r: 2, loraAlpha: 4, targetModules: ["q_proj"] };

const heads: Record<string, (device: TestDevice) => Promise<CausalLM>> = {
  "a frozen head": async (device) => {
    const model = drawn(device);
    await lora.inject(model, q);
    return shaken(model, device);
  },
  "a head that is trained": (device) => Promise.resolve(drawn(device)),
  "a head that is tied and trained": (device) =>
    Promise.resolve(drawn(device, { tie_word_embeddings: true })),
  "a head with a bias": (device) => {
    const model = drawn(device);
    model.lm_head = new nn.Linear(24, V, { device });
    return Promise.resolve(model);
  },
  "a head with only its bias trained": (device) => {
    const model = drawn(device);
    model.lm_head = new nn.Linear(24, V, { device });
    model.lm_head.weight.requiresGrad = false;
    return Promise.resolve(model);
  },
  "a head with low-rank paths": async (device) => {
    const model = drawn(device);
    await lora.inject(model, { ...q, targetModules: ["q_proj", "lm_head"] });
    return shaken(model, device);
  },
  "a head with DoRA": async (device) => {
    const model = drawn(device);
    await lora.inject(model, { ...q, targetModules: ["lm_head"], useDora: true });
    return shaken(model, device);
  },
  "a head with capped logits": (device) => Promise.resolve(capped(device, 5)),
  "a frozen head with capped logits": async (device) => {
    const model = capped(device, 5);
    await lora.inject(model, q);
    return shaken(model, device);
  },
  "an adapter's separate head": async (device) => {
    const model = drawn(device, { tie_word_embeddings: true });
    await lora.inject(model, { ...q, modulesToSave: ["lm_head"] });
    return shaken(model, device);
  },
};

const masks: Record<string, (at: number) => boolean> = {
  "every label": () => false,
  "labels in runs": (at) => at % 9 < 4,
  "scattered labels": (at) => at % 2 === 1,
};

function batchOf(B: number, T: number, ignored: (at: number) => boolean): [Int32Array, Int32Array] {
  const ids = Int32Array.from({ length: B * T }, (_, i) => (i * 31 + 7) % V);
  return [ids, ids.map((id, i) => (ignored(i) ? IGNORED : id))];
}

/** Returns the cross-entropy of the logits, computed in one piece. */
function composed(model: CausalLM, ids: Tensor, labels: Int32Array, options: LossOptions): Tensor {
  const [B, T] = ids.shape as [number, number];
  const targets = new Int32Array(B * T).fill(IGNORED);
  for (let b = 0; b < B; b++) targets.set(labels.subarray(b * T + 1, (b + 1) * T), b * T);
  const logits = model.forward(ids).logits.reshape(B * T, V);
  const { labelSmoothing = 0, reduction = "mean" } = options;
  const loss = logits.crossEntropy(tensor(targets, { device: ids.device }), { labelSmoothing, reduction });
  return reduction === "none" ? loss.reshape(B, T) : loss;
}

/** Returns a loss and its gradients, on the host. */
async function found(model: CausalLM, loss: () => Tensor) {
  for (const one of model.parameters()) one.grad = null;
  const value = scope(() => {
    const one = loss();
    one.backward(one.shape.length === 0 ? undefined : ramp(one.shape, model.device as TestDevice));
    return one.detach();
  });
  const gradients = new Map<string, ArrayLike<number>>();
  for (const [name, one] of model.namedParameters())
    if (one.requiresGrad) gradients.set(name, (await one.grad?.data()) ?? []);
  return { value: await value.data(), gradients };
}

function ramp(shape: readonly number[], device: TestDevice): Tensor {
  const size = shape.reduce((n, d) => n * d, 1);
  return tensor(
    Float32Array.from({ length: size }, (_, i) => 0.5 + ((i * 7) % 11) / 11),
    { shape, device },
  );
}

/** Compares within the bound of the parity tests: f32 rounding in sums of about a hundred terms. */
async function same(t: ExecutionContext, model: CausalLM, a: () => Tensor, b: () => Tensor, what: string) {
  const [ours, theirs] = [await found(model, a), await found(model, b)];
  t.true(error(ours.value, theirs.value) < 1e-5, `${what}: the loss`);
  t.true(theirs.gradients.size > 0);
  for (const [name, gradient] of theirs.gradients) {
    const off = error(ours.gradients.get(name) ?? [], gradient);
    t.true(off < 2e-5, `${what}: the gradient of ${name} is off by ${off}`);
  }
}

const OPTIONS: LossOptions[] = [
  {},
  { reduction: "sum", labelSmoothing: 0.1 },
  { reduction: "none" },
  { reduction: "none", labelSmoothing: 0.2 },
];

for (const device of testDevices()) {
  for (const [name, make] of Object.entries(heads)) {
    test(`${name} on ${device}: loss and gradients match the logits`, async (t) => {
      const model = await make(device);
      for (const [mask, ignored] of Object.entries(masks)) {
        for (const options of OPTIONS) {
          const [host, labels] = batchOf(2, 50, ignored);
          const ids = tensor(host, { shape: [2, 50], device });
          const what = `${mask}, ${JSON.stringify(options)}`;
          await same(
            t,
            model,
            () => model.loss(ids, labels, options),
            () => composed(model, ids, labels, options),
            what,
          );
          // Labels on the device alone give the same.
          const unknown = tensor(labels, { shape: [2, 50], device })
            .add(0)
            .to("i32");
          const [known, blind] = [
            await scope(() => model.loss(ids, labels, options)).data(),
            await scope(() => model.loss(ids, unknown, options)).data(),
          ];
          t.true(error(blind, known) < 1e-5, `${what}: labels of the device`);
        }
      }
      model.dispose();
    });
  }

  for (const name of ["a head with low-rank paths", "a head that is trained"]) {
    test(`${name} on ${device}: more rows than one chunk`, async (t) => {
      const model = await (heads[name] as (typeof heads)[string])(device);
      const [host, labels] = batchOf(2, 650, (at) => at % 13 === 1);
      const ids = tensor(host, { shape: [2, 650], device });
      for (const options of [{}, { reduction: "none" }] as const) {
        const [ours, theirs] = [
          () => model.loss(ids, labels, options),
          () => composed(model, ids, labels, options),
        ];
        await same(t, model, ours, theirs, JSON.stringify(options));
      }
      model.dispose();
    });
  }

  test(`adapters by row on ${device}, some with separate heads, equal each adapter alone`, async (t) => {
    const model = drawn(device);
    await lora.inject(model, { ...q, name: "one" });
    await lora.inject(model, { ...q, name: "two", modulesToSave: ["lm_head"] });
    await lora.inject(model, { ...q, name: "three", targetModules: ["v_proj", "lm_head"] });
    for (const name of ["one", "two", "three"]) {
      lora.setAdapter(model, name, { trainable: true });
      shaken(model, device);
    }
    const [B, T] = [6, 9];
    const order = ["two", null, "one", "one", "three", "two"];
    const [host, labels] = batchOf(B, T, (at) => at % 5 === 2);
    const alone: number[] = [];
    for (const [row, name] of order.entries()) {
      const part = (of: Int32Array) => of.slice(row * T, (row + 1) * T);
      const own = (): Promise<ArrayLike<number>> => {
        const ids = tensor(part(host), { shape: [1, T], device });
        return scope(() => model.loss(ids, part(labels), { reduction: "none" })).data();
      };
      if (name !== null) lora.setAdapter(model, name);
      alone.push(...Array.from(await (name === null ? lora.withoutAdapters(model, own) : own())));
    }
    const counted = labels.map((label, at) => (at % T !== 0 && label !== IGNORED ? 1 : 0));
    const mean = [...new Set(order)].reduce((sum, name) => {
      const rows = order.flatMap((one, row) => (one === name ? [row] : []));
      const within = (of: ArrayLike<number>): number =>
        rows.reduce(
          (n, row) =>
            n +
            Array.from(of)
              .slice(row * T, (row + 1) * T)
              .reduce((a, b) => a + b, 0),
          0,
        );
      return sum + within(alone) / within(counted);
    }, 0);
    const total = alone.reduce((a, b) => a + b, 0);
    for (const active of ["one", "two", "three"]) {
      lora.setAdapter(model, active);
      const ids = tensor(host, { shape: [B, T], device });
      for (const given of [
        labels,
        tensor(labels, { shape: [B, T], device })
          .add(0)
          .to("i32"),
      ]) {
        const by = (reduction: "mean" | "sum" | "none") =>
          scope(() => model.loss(ids, given, { adapterPerRow: order, reduction }));
        t.true(error(await by("none").data(), alone) < 1e-5, `${active} active: apart`);
        t.true(Math.abs((await by("sum").item()) / total - 1) < 1e-5, `${active} active: the sum`);
        t.true(Math.abs((await by("mean").item()) / mean - 1) < 1e-5, `${active} active: the mean`);
      }
    }
    model.dispose();
  });
}

test("no loss ever allocates as much as the logits", async (t) => {
  const [B, T, classes] = [4, 128, 40_000];
  const device = "meta:cpu";
  const logitBytes = B * T * classes * 4;
  const heads: Record<string, (model: CausalLM) => Promise<unknown>> = {
    frozen: (model) => lora.inject(model, q),
    "with low-rank paths": (model) => lora.inject(model, { ...q, targetModules: ["lm_head"] }),
  };
  for (const [name, adapt] of Object.entries(heads)) {
    const model = drawn(device, { vocab_size: classes });
    await adapt(model);
    const before = memory(device).live;
    const [host] = batchOf(B, T, () => false);
    scope(() => model.loss(tensor(host, { shape: [B, T], device }), host).backward());
    const peak = memory(device).peak - before;
    t.true(peak < 2 * 2 ** 26 + 2 ** 24, `${name}: ${peak} bytes, where the logits are ${logitBytes}`);
    model.dispose();
  }
});

test("arguments of forward are validated by name", (t) => {
  const model = drawn("cpu");
  const ids = tensor(new Int32Array(6), { shape: [2, 3], device: "cpu" });
  const wrong: [input: unknown, options: unknown, message: RegExp][] = [
    ["x", {}, /^forward: its input must be a tensor, got "x"/],
    [undefined, {}, /its input must be a tensor/],
    [ids, { lables: ids }, /there is no option lables \(did you mean labels\?\); there are .*labels/],
    [ids, null, /the last argument must be an object of options, got null/],
    [ids, { attentionMask: [1] }, /attentionMask must be a tensor/],
    [ids, { adapterPerRow: "one" }, /adapterPerRow must be an array, got "one"/],
    [ids, { adapterPerRow: [1, null] }, /adapterPerRow\[0\] must be a name or null, got 1/],
  ];
  for (const [input, options, message] of wrong)
    t.throws(() => model.forward(input as Tensor, options as LossOptions), { code: "ERR_OPTION", message });
  t.throws(() => model.forward(ids, { adapterPerRow: ["one", null] }), { code: "ERR_UNKNOWN_ADAPTER" });
  model.dispose();
});

test("invalid labels are refused by name, before anything is computed", (t) => {
  const model = drawn("cpu");
  const ids = tensor(new Int32Array(6), { shape: [2, 3], device: "cpu" });
  const wrong: [labels: unknown, options: unknown, code: string, message: RegExp][] = [
    [new Int32Array(5), {}, "ERR_SHAPE_MISMATCH", /labels are \[5\], ids \[2, 3\]/],
    [tensor(new Int32Array(6), { device: "cpu" }), {}, "ERR_SHAPE_MISMATCH", /labels are \[6\]/],
    [tensor(new Float32Array(6), { shape: [2, 3], device: "cpu" }), {}, "ERR_DTYPE", /labels are i32/],
    [
      Int32Array.of(0, 0, 0, 0, V, 0),
      {},
      "ERR_INDEX",
      /label 97 at \[1, 1\] is not a token; labels are 0 to 96/,
    ],
    [Int32Array.of(0, -1, 0, 0, 0, 0), {}, "ERR_INDEX", /label -1 at \[0, 1\]/],
    [undefined, {}, "ERR_OPTION", /^loss: labels must be an i32 tensor or an Int32Array, got undefined/],
    ["x", {}, "ERR_OPTION", /labels must be an i32 tensor or an Int32Array, got "x"/],
    [[0, 0], {}, "ERR_OPTION", /labels/],
    [new Int32Array(6), { labelSmoothing: 1.5 }, "ERR_OPTION", /labelSmoothing must be a number from 0 to 1/],
    [new Int32Array(6), { reduction: "avg" }, "ERR_OPTION", /reduction must be one of mean, sum, none/],
  ];
  session().collect(0);
  const before = memory("cpu").tensors;
  for (const [labels, options, code, message] of wrong)
    t.throws(() => model.loss(ids, labels as Int32Array, options as LossOptions), { code, message });
  // The tensors in the table of cases are still referenced.
  t.is(memory("cpu").tensors, before);
  // The first label of a row is not a target, as in transformers.
  t.notThrows(() => model.loss(ids, Int32Array.of(V, 0, 0, 0, 0, 0)).dispose());
  model.dispose();
});

test("logits stay within the cap, and sampling uses the capped logits", async (t) => {
  const [near, far] = [capped("cpu", 0.01), capped("cpu", 1e6)];
  const ids = Int32Array.of(3, 40, 17);
  const logits = await near.forward(tensor(ids, { shape: [1, 3] })).logits.data();
  t.true(logits.every((one) => Math.abs(one) <= 0.01) && logits.some((one) => Math.abs(one) > 0.0099));
  // With a low cap all tokens are about equally likely; without it one dominates.
  const firsts = async (model: CausalLM): Promise<Set<number>> => {
    const tokens = new Set<number>();
    for (let seed = 0; seed < 12; seed++)
      for await (const { token } of model.generate(ids, { maxNewTokens: 1, temperature: 1, seed }))
        tokens.add(token);
    return tokens;
  };
  t.true((await firsts(near)).size > 8);
  t.true((await firsts(far)).size < 4);
  near.dispose();
  far.dispose();
});
