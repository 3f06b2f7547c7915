/** The sums of a step's gradients begin while its backward pass continues. */
import test from "ava";
import { finetune, optim, scope, tensor, type Tensor } from "../../src/index.js";
import type { GradientExchange, Optimizer } from "../../src/optim/optimizer.js";
import type { Ranks } from "../../src/ranks/ranks.js";
import { RunRanks } from "../../src/train/ranks/run-ranks.js";
import { tinyData, tinyModel } from "../hashed.js";
import { collect, quick } from "./quick.js";

/** The first of two ranks whose other one holds the same values. */
function mirroredRanks(sum: Ranks["sum"]): Ranks {
  return {
    rank: 0,
    size: 2,
    localRank: 0,
    localSize: 2,
    host: "here",
    gather: (bytes) => Promise.resolve([bytes, bytes]),
    exchange: ([own = new Uint8Array()]) => Promise.resolve([own, own]),
    sum,
    abort: () => {},
    finish: () => Promise.resolve(),
  };
}

const twice = (values: Float32Array): Promise<Float32Array> => Promise.resolve(values.map((x) => 2 * x));

/** Values between 1 and 2. */
const parameter = (seed: number): Tensor =>
  tensor(
    Float32Array.from({ length: 100 }, (_, i) => 1 + ((i * seed) % 17) / 17),
    { requiresGrad: true },
  );

test("backward reads the gradients that it completes, last parameters first", async (t) => {
  const [first, tied, last] = [3, 5, 7].map(parameter) as [Tensor, Tensor, Tensor];
  const optimizer = new optim.AdamW([first, tied, last], { lr: 0.1 });
  const loss = (): Tensor => tied.mul(first).mul(last).mul(tied).sum();
  scope(() => loss().backward());
  const exchange = optimizer.beginExchange(128);
  scope(() => exchange.backward(loss()));
  // Nothing has been recorded after backward.
  const read = await Promise.all(exchange.values);
  for (const [i, parameter] of [last, tied, first].entries())
    t.deepEqual(read[i], await parameter.grad!.data());
  exchange.finish();
  for (const [i, own] of read.entries())
    exchange.answer(
      i,
      own.map((x) => -x),
    );
  t.deepEqual(
    await tied.grad!.data(),
    read[1]!.map((x) => -x),
  );
  optimizer.dispose();
});

test("a cancelled exchange rejects the unread buckets, and another exchange may follow", async (t) => {
  const [used, unused] = [3, 5].map(parameter) as [Tensor, Tensor];
  const optimizer = new optim.AdamW([used, unused], { lr: 0.1 });
  const given = optimizer.beginExchange(128);
  given.cancel();
  for (const value of given.values) await t.throwsAsync(value, { code: "ERR_ABORTED" });
  const exchange = optimizer.beginExchange(128);
  scope(() => exchange.backward(used.mul(used).sum()));
  exchange.finish();
  // A cancel after the end changes nothing.
  exchange.cancel();
  const read = await Promise.all(exchange.values);
  t.true(read[0]!.every((x) => x === 0));
  for (const [i, own] of read.entries()) exchange.answer(i, own);
  t.deepEqual(await used.grad!.data(), read[1]!);
  optimizer.dispose();
});

test("a sum begins before the next bucket and the loss are known", async (t) => {
  const order: string[] = [];
  let complete = (): void => {};
  const ranks = mirroredRanks((values) => {
    order.push(`sum of ${values.length}`);
    // Backward ends only after the first sum has begun.
    complete();
    return twice(values);
  });
  const ended = new Promise<void>((resolve) => (complete = resolve));
  const after = (name: string) => (): void => void order.push(name);
  const exchange: GradientExchange = {
    values: [Promise.resolve(new Float32Array(3)), ended.then(() => Float32Array.of(1, 2))],
    backward: after("backward"),
    finish: after("finish"),
    cancel: after("cancel"),
    answer: (bucket, values) => order.push(`answer ${bucket}: ${values.length}`),
    fail: after("fail"),
  };
  const run = new RunRanks(ranks, { asked: new AbortController().signal, inOrder: true });
  const loss = ended.then(() => 0.5);
  const summed = await run.sumGradients(exchange, { loss, tokens: 8, memoryBytes: 9 });
  t.is(summed.loss, 1);
  t.deepEqual(
    summed.ranks.map(({ memoryBytes }) => memoryBytes),
    [18, 0],
  );
  // The second has the figures of the step: two, and two of each rank.
  t.deepEqual(order, ["finish", "sum of 3", "answer 0: 3", "sum of 8", "answer 1: 2"]);
});

test.serial("the last micro-batch of each step reads the gradients during its backward", async (t) => {
  const order: string[] = [];
  const prototype = Object.getPrototypeOf(optim.AdamW.prototype) as Optimizer;
  // eslint-disable-next-line @typescript-eslint/unbound-method
  const { beginExchange } = prototype;
  prototype.beginExchange = function (this: Optimizer, most: number): GradientExchange {
    order.push("begin");
    const exchange = beginExchange.call(this, most);
    const note = (name: "backward" | "finish"): unknown[] => [
      name,
      (...given: [Tensor]) => {
        order.push(name);
        exchange[name](...given);
      },
    ];
    return { ...exchange, ...Object.fromEntries([note("backward"), note("finish")]) } as GradientExchange;
  };
  t.teardown(() => (prototype.beginExchange = beginExchange));
  const ranks = mirroredRanks(twice);
  const more = { batchSize: 2, gradientAccumulation: 4, steps: 2, ranks };
  const events = await collect(finetune(quick({ model: tinyModel(), data: tinyData() }, "cpu", more)));
  t.is(events.filter(({ type }) => type === "step").length, 2);
  t.deepEqual(order, ["begin", "backward", "finish", "begin", "backward", "finish"]);
});
