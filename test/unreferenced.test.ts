/** Tensors that are neither disposed nor referenced are freed, whether they left a scope or never were in one. */
import { setTimeout as later } from "node:timers/promises";

import test from "ava";

import { checkpoint, memory, nn, scope, zeros, type Tensor } from "../src/index.js";
import { atRest } from "./at-rest.js";

const device = "cpu";
const ROWS = 1000;

function some(): Tensor {
  return zeros([ROWS], { device });
}

/** Each creates one tensor or more and drops it. */
const cases: Record<string, () => unknown> = {
  "created outside of any scope": () => void some(),
  "returned by a scope": () => void scope(() => ({ kept: [some()] })),
  "returned by a nested scope and discarded": () => void scope(() => scope(() => some())),
  "returned by a checkpoint": () => void checkpoint(() => some()),
  "returned by an asynchronous scope": () => scope(async () => Promise.resolve(some())),
  "created in a scope that never settles": () => {
    void scope(async () => {
      some();
      await new Promise(() => {});
    });
  },
  "created later in a scope that never settles": () => {
    void scope(async () => {
      await Promise.resolve();
      some();
      await new Promise(() => {});
    });
  },
  "returned to a scope that never settles": () => {
    void scope(async () => {
      await Promise.resolve();
      scope(() => some());
      await new Promise(() => {});
    });
  },
  "created by work that a scope left running": async () => {
    let running: Promise<void> | undefined;
    scope(() => {
      running = Promise.resolve().then(() => void some());
    });
    await running;
  },
  "a layer made in a scope": () => void scope(() => void new nn.Linear(2, 3, { device })),
};

for (const [name, make] of Object.entries(cases)) {
  test.serial(`freed without references: ${name}`, async (t) => {
    const before = (await atRest(device)).tensors;
    await make();
    for (let turn = 0; turn < 100 && memory(device).tensors > before; turn++) {
      globalThis.gc?.();
      await later(5);
    }
    t.is(memory(device).tensors, before);
  });
}

test.serial("a scope's tensors live until it ends", async (t) => {
  const before = (await atRest(device)).tensors;
  let held = 0;
  await scope(async () => {
    some();
    held = memory(device).tensors - before;
    await later(5);
  });
  t.is(held, 1);
  t.is(memory(device).tensors, before);
});
