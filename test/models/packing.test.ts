/**
 * Rows packed into a sequence give the same results as separate rows, in every family. Bounds: losses are f32 sums
 * over some 50 tokens in another order, and agree to 1e-6; gradients agree to 1e-5 of a tensor's largest value.
 */
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import { buildPackedBatch, type Batch } from "../../src/data/batches.js";
import type { Example } from "../../src/data/store.js";
import {
  arange,
  type CausalLM,
  loadModel,
  lora,
  optim,
  scope,
  tensor,
  type Tensor,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel, words } from "../hashed.js";
import { error, goldens } from "../parity/goldens.js";

const FAMILIES: Record<string, string> = {
  llama: "llama-tied",
  "llama-3": "llama-untied-llama3",
  mistral: "llama-mistral",
  qwen2: "llama-qwen2",
  qwen3: "llama-qwen3",
  gemma3: "llama-gemma3",
  phi3: "llama-phi3",
  gpt2: "families/gpt2",
};

/** Returns a row of random tokens; the first `ignored` ones are not trained on. */
function row(name: string, length: number, ignored = 0): Example {
  const ids = Int32Array.from(words(name, length), (word) => 3 + (word % 90));
  const labels = ids.slice().fill(-100, 0, ignored);
  return { ids, labels, trained: length - Math.max(ignored, 1) };
}

/** Two sequences of several rows, longer than the sliding windows; the second is padded. */
const SEQUENCES = [
  [row("a", 13), row("b", 1), row("c", 7, 3)],
  [row("d", 2), row("e", 11, 5)],
];
const ROWS = SEQUENCES.flat();

function lossOf(model: CausalLM, { ids, labels, shape, positions }: Batch): Tensor {
  const input = tensor(ids, { shape, device: model.device });
  const positionIds = positions && tensor(positions, { shape, device: model.device });
  return model.loss(input, labels, { reduction: "sum", positionIds });
}

/** Returns the loss of batches, and their accumulated gradients. */
async function trained(model: CausalLM, batches: Batch[]) {
  const parameters = collectAdapterState(model, "default");
  let loss = 0;
  for (const batch of batches) {
    const own = scope(() => {
      const one = lossOf(model, batch);
      one.backward();
      return one.detach();
    });
    loss += await own.item();
    own.dispose();
  }
  const gradients: [string, ArrayLike<number>][] = [];
  for (const [name, parameter] of parameters) gradients.push([name, await (parameter.grad as Tensor).data()]);
  new optim.SGD([...parameters.values()], { lr: 0 }).zeroGrad();
  return { loss, gradients: new Map(gradients) };
}

async function adapted(folder: string, device: TestDevice): Promise<CausalLM> {
  const model = (await loadModel(goldenModel(join(goldens, folder)), { device })) as CausalLM;
  await lora.inject(model, { r: 3, loraAlpha: 5, targetModules: "all-linear", initLoraWeights: false });
  return model;
}

async function equal(t: ExecutionContext, family: string, device: TestDevice): Promise<void> {
  const apart = ROWS.map((one) => buildPackedBatch([[one]], 0));
  const packed = buildPackedBatch(SEQUENCES, 0);
  t.is(
    apart.reduce((sum, batch) => sum + batch.trained, 0),
    packed.trained,
  );
  const model = await adapted(FAMILIES[family] as string, device);
  for (const checkpointed of [false, true]) {
    model.train().gradientCheckpointing = checkpointed;
    const one = await trained(model, apart);
    const other = await trained(model, [packed]);
    t.true(Math.abs(other.loss / one.loss - 1) < 1e-6, `${other.loss} packed, ${one.loss} by themselves`);
    let most = 0;
    for (const [name, gradient] of one.gradients)
      most = Math.max(most, error(other.gradients.get(name) ?? [], gradient));
    t.log(`loss ${(other.loss / one.loss - 1).toExponential(1)}, gradients ${most.toExponential(1)}`);
    t.true(most < 1e-5, `gradients are off by ${most}`);
  }
  model.dispose();
}

for (const device of testDevices())
  for (const family of Object.keys(FAMILIES))
    test(`${family} on ${device}: packed rows have the loss and the gradients of separate rows`, (t) =>
      equal(t, family, device));

/** Returns the losses of every position, with positions known to the host or only to the device. */
async function losses(model: CausalLM, batch: Batch, positions: Tensor | undefined) {
  const out = scope(() =>
    model.loss(tensor(batch.ids, { shape: batch.shape, device: model.device }), batch.labels, {
      reduction: "none",
      positionIds: positions,
    }),
  );
  return (await out.data()) as Float32Array;
}

for (const device of testDevices()) {
  for (const family of ["llama", "gemma3", "gpt2"]) {
    test(`${family} on ${device}: positions known only to the device separate texts as well`, async (t) => {
      const model = await adapted(FAMILIES[family] as string, device);
      const batch = buildPackedBatch(SEQUENCES, 0);
      const given = tensor(batch.positions as Int32Array, { shape: batch.shape, device });
      const computed = given.mul(1).to("i32");
      const [one, other] = [await losses(model, batch, given), await losses(model, batch, computed)];
      t.true(error(one, other) < 1e-6);
      const alone = await losses(model, buildPackedBatch([[ROWS[2] as Example]], 0), undefined);
      t.true(error(one.subarray(14, 20), alone.subarray(0, 6)) < 1e-5);
      model.dispose();
    });
  }
}

test("consecutive positions equal a row without positions", async (t) => {
  const model = await adapted("llama-tied", "cpu");
  const [batch] = [buildPackedBatch([[ROWS[0] as Example]], 0)] as [Batch];
  const T = batch.shape[1];
  const later = tensor(
    Int32Array.from({ length: T }, (_, i) => i),
    { shape: [1, T] },
  );
  t.deepEqual(await losses(model, batch, later), await losses(model, batch, undefined));
  model.dispose();
});

test("an explicit mask replaces the separation of packed rows", async (t) => {
  const model = await adapted("llama-tied", "cpu");
  const batch = buildPackedBatch(SEQUENCES, 0);
  const { shape } = batch;
  const run = (attentionMask: Tensor | undefined, at: number): Promise<Float32Array> => {
    const positionIds = tensor(batch.positions as Int32Array, { shape });
    const ids = tensor(batch.ids.slice().fill(at, 0, 1), { shape });
    const { hidden } = model.forward(ids, { positionIds, attentionMask });
    return hidden.data() as Promise<Float32Array>;
  };
  const C = 48;
  const last = (values: Float32Array): Float32Array => values.slice(20 * C, 21 * C);
  const ones = tensor(new Int32Array(shape[0] * shape[1]).fill(1), { shape });
  // With a mask the last row of the first sequence sees the first token of the sequence.
  t.deepEqual(last(await run(undefined, 5)), last(await run(undefined, 6)));
  t.notDeepEqual(last(await run(ones, 5)), last(await run(ones, 6)));
  model.dispose();
});

test("invalid positions, and adapters by row, are refused", async (t) => {
  const model = await adapted("llama-tied", "cpu");
  const ids = tensor(new Int32Array(4).fill(5), { shape: [1, 4] });
  const positions = (values: number[], shape = [1, values.length]): Tensor =>
    tensor(Int32Array.from(values), { shape });
  t.throws(() => model.forward(ids, { positionIds: positions([0, 1, 2]) }), {
    code: "ERR_SHAPE_MISMATCH",
    message: /positionIds are \[1, 3\], ids \[1, 4\]/,
  });
  t.throws(() => model.forward(ids, { positionIds: positions([0, 1, 0, 128]) }), {
    code: "ERR_INDEX",
    message: /position 128 at \[0, 3\] is out of range; the model has 0 to 127/,
  });
  t.throws(() => model.forward(ids, { positionIds: positions([0, 1, -1, 0]) }), { code: "ERR_INDEX" });
  t.throws(() => model.forward(ids, { positionIds: arange(4).reshape(1, 4).to("f32") }), {
    code: "ERR_DTYPE",
    message: /positionIds are i32, not f32/,
  });
  const packed = { positionIds: positions([0, 1, 0, 1]), adapterPerRow: ["default"] };
  t.throws(() => model.forward(ids, packed), {
    code: "ERR_OPTION",
    message: /give each text a separate row/,
  });
  t.notThrows(() => model.forward(ids, { ...packed, positionIds: positions([0, 1, 2, 3]) }));
  model.dispose();
});
