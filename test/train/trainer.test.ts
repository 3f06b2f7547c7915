import test from "ava";
import {
  memory,
  nn,
  optim,
  tensor,
  Trainer,
  type StepEvent,
  type Tensor,
  type TrainerEvent,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { collect } from "./quick.js";

type Batch = { x: number[]; y: number[] };

/** y = 3x − 1, in batches of four. */
const data: Batch[] = Array.from({ length: 6 }, (_, i) => {
  const x = [0, 1, 2, 3].map((k) => ((i * 4 + k) % 7) / 7);
  return { x, y: x.map((one) => 3 * one - 1) };
});

function lossOf(model: nn.Linear, { x, y }: Batch): Tensor {
  const { device } = model.weight;
  const column = (values: number[]): Tensor => tensor(values, { shape: [values.length, 1], device });
  const difference = model.forward(column(x)).sub(column(y));
  return difference.mul(difference).mean();
}

for (const device of testDevices()) {
  test.serial(`on ${device} a user-defined model learns, with the events of finetune`, async (t) => {
    const before = (await atRest(device)).live;
    const model = new nn.Linear(1, 1, { device });
    const optimizer = new optim.AdamW(model.parameters(), { lr: 0.1, weightDecay: 0 });
    const trainer = new Trainer({
      model,
      loss: lossOf,
      data,
      optimizer,
      epochs: 30,
      gradientAccumulation: 2,
      evalData: data,
      evalEvery: 45,
      schedule: optim.schedule.linear({ total: 90 }),
    });
    const events = await collect(trainer);
    const result = await trainer.result;
    t.is(result.steps, 90);
    t.deepEqual(
      events.filter((e) => e.type !== "step").map((e) => e.type),
      ["start", "eval", "eval", "eval", "end"],
    );
    const evals = events.filter((e) => e.type === "eval").map((e) => e.loss);
    t.true((evals.at(-1) as number) < 0.01 * (evals[0] as number), String(evals));
    t.is(optimizer.groups[0]?.lr, 0.1);
    optimizer.dispose();
    model.dispose();
    t.is(memory(device).live, before);
  });

  test.serial(
    `on ${device} a loss that is not finite ends the run before its update, and the optimizer stays usable`,
    async (t) => {
      const model = new nn.Linear(1, 1, { device });
      const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
      const broken = [data[0] as Batch, { x: [1], y: [Number.NaN] }, data[1] as Batch];
      const events: TrainerEvent[] = [];
      const trainer = new Trainer({ model, loss: lossOf, data: broken, optimizer });
      const failure = await t.throwsAsync(
        async () => {
          for await (const event of trainer) events.push(event);
        },
        { code: "ERR_NOT_FINITE" },
      );
      t.regex(failure?.message ?? "", /^step 2: the loss is NaN/);
      t.is(events.filter((e) => e.type === "step").length, 1);
      t.true(Number.isFinite(await model.weight.item()));
      const again = await new Trainer({ model, loss: lossOf, data, optimizer }).result;
      t.true(Number.isFinite(again.loss));
      optimizer.dispose();
      model.dispose();
    },
  );

  test.serial(`on ${device} an abort rejects with its reason, within a step`, async (t) => {
    const model = new nn.Linear(1, 1, { device });
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const controller = new AbortController();
    const steps: StepEvent[] = [];
    const trainer = new Trainer({
      model,
      loss: lossOf,
      data,
      optimizer,
      epochs: 1000,
      signal: controller.signal,
    });
    const reason = new Error("enough");
    const failure = await t.throwsAsync(async () => {
      for await (const event of trainer) {
        if (event.type !== "step") continue;
        steps.push(event);
        if (event.step === 5) controller.abort(reason);
      }
    });
    t.is(failure, reason);
    t.true(steps.length <= 7, String(steps.length));
    const before = await model.weight.item();
    await new Trainer({ model, loss: lossOf, data, optimizer }).result;
    t.not(await model.weight.item(), before);
    optimizer.dispose();
    model.dispose();
  });
}

test("batches are weighted, in a step and in an evaluation", async (t) => {
  const whole: Batch[] = [{ x: [0, 1, 2], y: [1, 1, 1] }];
  const parts: Batch[] = [
    { x: [0], y: [1] },
    { x: [1, 2], y: [1, 1] },
  ];
  const results = await Promise.all(
    [whole, parts].map(async (batches) => {
      const model = new nn.Linear(1, 1, { device: "cpu", bias: false });
      model.weight.copy(tensor([[0.5]], { device: "cpu" }));
      const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
      const { loss, evalLoss } = await new Trainer({
        model,
        loss: lossOf,
        data: batches,
        optimizer,
        gradientAccumulation: batches.length,
        clipNorm: 0,
        evalData: batches,
        weight: ({ x }) => x.length,
      }).result;
      return [loss, evalLoss, await model.weight.item()] as number[];
    }),
  );
  const [one, other] = results as [number[], number[]];
  for (const [i, value] of one.entries())
    t.true(Math.abs(value - (other[i] as number)) < 1e-6, String(results));
});

test("data that can be read only once is an error in the second epoch", async (t) => {
  const model = new nn.Linear(1, 1, { device: "cpu" });
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
  const once = data.values();
  await t.throwsAsync(new Trainer({ model, loss: lossOf, data: once, optimizer, epochs: 2 }).result, {
    code: "ERR_OPTION",
    message: /epoch 2/,
  });
  const anew = (epoch: number): Batch[] => data.slice(0, epoch + 1);
  t.is((await new Trainer({ model, loss: lossOf, data: anew, optimizer, epochs: 3 }).result).steps, 6);
  await t.throwsAsync(new Trainer({ model, loss: lossOf, data, optimizer, steps: 0 }).result, {
    code: "ERR_OPTION",
  });
});

test.serial("stop() ends an evaluation early, and the run after its last complete step", async (t) => {
  const model = new nn.Linear(1, 1, { device: "cpu" });
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
  let evaluated = 0;
  const trainer: Trainer<nn.Linear, Batch> = new Trainer({
    model,
    loss: lossOf,
    data,
    optimizer,
    steps: 6,
    evalEvery: 2,
    *evalData() {
      for (let i = 0; i < 200; i++) {
        // During the second evaluation, after two steps.
        if (++evaluated === 203) void trainer.stop();
        yield data[0] as Batch;
      }
    },
  } as ConstructorParameters<typeof Trainer<nn.Linear, Batch>>[0]);
  const events = await collect(trainer);
  t.like(await trainer.result, { steps: 2, stopped: true });
  t.true(evaluated < 210, String(evaluated));
  t.is(events.filter((event) => event.type === "eval").length, 1);
});
