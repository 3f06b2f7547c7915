import test from "ava";
import type { StepEvent, TrainEvent } from "../../src/train/events.js";
import { EventQueue } from "../../src/train/queue.js";
import { Run } from "../../src/train/run.js";

function step(n: number): StepEvent {
  return {
    type: "step",
    step: n,
    steps: 5000,
    loss: 1 / n,
    learningRate: 1e-4,
    gradNorm: 1,
    tokens: n,
    tokensPerSecond: 1,
    etaSeconds: 1,
    memoryBytes: 1,
    merged: 1,
  };
}

async function drain(queue: EventQueue<TrainEvent>): Promise<TrainEvent[]> {
  const events: TrainEvent[] = [];
  for (let next = await queue.next(); next.done !== true; next = await queue.next()) events.push(next.value);
  return events;
}

test("events arrive in their order, each once", async (t) => {
  const run = new Run(async ({ emit }) => {
    for (let n = 1; n <= 3; n++) emit(step(n));
    return "done";
  });
  const seen: number[] = [];
  for await (const event of run) if (event.type === "step") seen.push(event.step);
  t.deepEqual(seen, [1, 2, 3]);
  t.is(await run.result, "done");
  for await (const event of run) t.fail(`given out twice: ${event.type}`);
});

test("without a reader, steps are merged and other events are kept", async (t) => {
  const queue = new EventQueue<TrainEvent>(8);
  queue.push({ type: "checkpoint", step: 0, path: "a" });
  for (let n = 1; n <= 100; n++) queue.push(step(n));
  queue.push({ type: "checkpoint", step: 100, path: "b" });
  t.is(queue.length, 8);
  queue.close();
  const events = await drain(queue);
  t.deepEqual(
    events.filter((event) => event.type === "checkpoint").map((event) => event.path),
    ["a", "b"],
  );
  const steps = events.filter((event) => event.type === "step");
  t.is(steps.at(-1)?.step, 100);
  t.is(
    steps.reduce((sum, event) => sum + event.merged, 0),
    100,
  );
});

test("the queue is bounded for all event types, and keeps the start event", async (t) => {
  const queue = new EventQueue<TrainEvent>(4);
  queue.push({ type: "start" } as TrainEvent);
  for (let n = 0; n < 50; n++) queue.push({ type: "warning", message: String(n) });
  t.is(queue.length, 4);
  queue.close();
  const events = await drain(queue);
  t.is(events[0]?.type, "start");
  t.deepEqual(events.at(-1), { type: "warning", message: "49" });
});

test("an error rejects the result and is thrown by the iterator, after the earlier events", async (t) => {
  const failure = new Error("broken");
  const run = new Run(async ({ emit }) => {
    emit(step(1));
    throw failure;
  });
  await t.throwsAsync(run.result, { is: failure });
  const seen: string[] = [];
  const thrown = await t.throwsAsync(async () => {
    for await (const event of run) seen.push(event.type);
  });
  t.is(thrown, failure);
  t.deepEqual(seen, ["step"]);
});

test("an error that nothing awaits is no unhandled rejection", async (t) => {
  const unhandled: unknown[] = [];
  const listener = (reason: unknown) => unhandled.push(reason);
  process.on("unhandledRejection", listener);
  void new Run(async () => {
    throw new Error("an error that nothing awaits");
  });
  // Node reports unhandled rejections before it runs immediates.
  await new Promise((resolve) => setImmediate(resolve));
  process.off("unhandledRejection", listener);
  t.deepEqual(unhandled, []);
});

test("a waiting reader gets the event, and the error", async (t) => {
  const queue = new EventQueue<TrainEvent>();
  const first = queue.next();
  queue.push(step(1));
  t.is((await first).value?.type, "step");
  const second = queue.next();
  queue.fail(new Error("broken"));
  await t.throwsAsync(second, { message: "broken" });
});

test("stop is passed to the work, and resolves with its result", async (t) => {
  const run = new Run(
    ({ stopping }) =>
      new Promise<string>((resolve) => stopping.addEventListener("abort", () => resolve("stopped"))),
  );
  t.is(await run.stop(), "stopped");
  t.is(await run.stop(), "stopped");
});

test("leaving the loop early does not stop the work", async (t) => {
  let finish: (() => void) | undefined;
  const run = new Run(async ({ emit, stopping }) => {
    emit(step(1));
    emit(step(2));
    await new Promise<void>((resolve) => (finish = resolve));
    return stopping.aborted;
  });
  for await (const event of run) {
    t.is(event.type, "step");
    break;
  }
  finish?.();
  t.false(await run.result);
});
