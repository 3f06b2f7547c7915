/**
 * Every whole-model function, for layers constructed by hand, injected, or both, of every kind: random sequences of
 * calls. After each call the model must match a plain record. A refused call changes nothing.
 * `LOWRANK_SEQUENCES=300 LOWRANK_SEED=7 npx ava test/lora/by-hand.test.ts` runs longer, with another seed.
 */
import test from "ava";
import fc from "fast-check";

import { lora, LowrankError, manualSeed, memory } from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { adapterCalls } from "./by-hand/adapter-calls.js";
import { fileCalls } from "./by-hand/file-calls.js";
import { mergeCalls } from "./by-hand/merge-calls.js";
import { holders, type Call, type Draw, type World } from "./by-hand/world.js";
import { kinds } from "./record.js";
import { Bag, differs, fingerprint, put, Values } from "./recorded-model.js";

const calls: Record<string, Call> = { ...adapterCalls, ...mergeCalls, ...fileCalls };
const names = Object.keys(calls);

/** Calls that are drawn more often, since the others depend on them. */
const OFTEN: Record<string, number> = {
  inject: 5,
  setAdapter: 3,
  saveAdapter: 5,
  loadAdapter: 5,
  hotSwap: 5,
  addWeightedAdapter: 3,
  merge: 2,
  "loraStateDict, saved": 3,
  convertAdapter: 3,
};
// fast-check shrinks failures towards the first entry.
const turns = ["unmerge", ...names.flatMap((name) => Array.from({ length: OFTEN[name] ?? 1 }, () => name))];

const draws: fc.Arbitrary<Draw> = fc.record({
  call: fc.constantFrom(...turns),
  name: fc.constantFrom("default", "default", "a", "b", "a", "b", "c"),
  other: fc.constantFrom("default", "default", "a", "b", "a", "b", "c"),
  layers: fc.subarray(kinds.map(({ name }) => name)),
  weight: fc.constantFrom(0.5, -1, 2),
  on: fc.boolean(),
  r: fc.integer({ min: 1, max: 3 }),
  dora: fc.constantFrom(true, false, false),
  bias: fc.constantFrom("none" as const, "none" as const, "all" as const, "lora_only" as const),
  slot: fc.nat(2),
  pick: fc.integer({ min: -2, max: 9 }),
});

/** For each call, how often it succeeded and how often it was refused. */
const tally = new Map<string, { done: number; refused: number }>();

/** Calls that mostly use an existing adapter, since any other is only refused. */
const ON_LOADED = [
  "setAdapter",
  "setAdapter twice",
  "deleteAdapter",
  "saveAdapter",
  "hotSwap",
  "addWeightedAdapter",
];

function aimed(world: World, draw: Draw): Draw {
  const { call, pick } = draw;
  if (pick < 0) return draw;
  const loaded = lora.adapters(world.bag);
  const filled = [...world.slots.keys()];
  const aim = { ...draw };
  if (ON_LOADED.includes(call) && loaded.length > 0) {
    aim.name = loaded[pick % loaded.length] as string;
    aim.other = loaded[(pick * 7 + 1) % loaded.length] as string;
  }
  if (["loadAdapter", "convertAdapter", "hotSwap"].includes(call) && filled.length > 0)
    aim.slot = filled[pick % filled.length] as number;
  if (call === "hotSwap") {
    const own = holders(world, aim.name)
      .map(([at]) => at)
      .join();
    const fitting = filled.find((slot) => [...(world.slots.get(slot)?.parts.keys() ?? [])].join() === own);
    if (fitting !== undefined) aim.slot = fitting;
  }
  if (call === "loadAdapter")
    aim.name = ["default", "a", "b", "c"].find((one) => !loaded.includes(one)) ?? aim.name;
  return aim;
}

async function step(world: World, draw: Draw): Promise<string | undefined> {
  const name = draw.call;
  const { act, expected } = (calls[name] as Call)(world, aimed(world, draw));
  if (expected === undefined) return undefined;
  const refusals = Array.isArray(expected) ? expected : (expected as { or?: string[] }).or;
  const before = refusals === undefined ? "" : await fingerprint(world.bag);
  const counted = tally.get(name) ?? { done: 0, refused: 0 };
  tally.set(name, counted);
  try {
    await act();
  } catch (error) {
    if (!(error instanceof LowrankError) || !refusals?.includes(error.code)) throw error;
    counted.refused++;
    const after = await fingerprint(world.bag);
    if (after !== before) return `${name}: refused with ${error.code}, and changed\n${before}\nto\n${after}`;
    return differs(world.bag, world.record);
  }
  if (Array.isArray(expected)) return `${name}: not refused with ${expected.join(" or ")}`;
  counted.done++;
  await expected();
  const wrong = await differs(world.bag, world.record);
  return wrong === undefined ? undefined : `${name}: ${wrong}`;
}

const sequences = Number(process.env["LOWRANK_SEQUENCES"] ?? 60);

test("after random sequences of 20 calls a model with all kinds of layers matches a plain record", async (t) => {
  t.timeout(3_600_000);
  const start = fc.array(fc.constantFrom("plain" as const, "hand" as const, "bare" as const), {
    minLength: kinds.length,
    maxLength: kinds.length,
  });
  const property = fc.asyncProperty(
    fc.nat(),
    start,
    fc.array(draws, { minLength: 20, maxLength: 20, size: "max" }),
    async (seed, as, sequence) => {
      manualSeed(seed);
      const { tensors } = await atRest("cpu");
      const world: World = {
        bag: new Bag(),
        record: new Map(),
        values: new Values(seed),
        slots: new Map(),
        marked: false,
        made: [],
      };
      for (const [i, kind] of kinds.entries())
        world.record.set(kind.name, await put(world.bag, kind, as[i] ?? "plain", 1 + (i % 3), world.values));
      const first = await differs(world.bag, world.record);
      if (first !== undefined) throw new Error(`at first: ${first}`);
      for (const [i, draw] of sequence.entries()) {
        const wrong = await step(world, draw);
        if (wrong !== undefined) throw new Error(`call ${i}: ${wrong}`);
      }
      lora.unload(world.bag);
      world.bag.dispose();
      for (const one of world.made) one.dispose();
      const left = memory("cpu").tensors - tensors;
      if (left !== 0) throw new Error(`${left} tensors are left`);
    },
  );
  const seed = Number(process.env["LOWRANK_SEED"] ?? 12);
  const { failed, counterexample, errorInstance } = await fc.check(property, {
    numRuns: sequences,
    seed,
    endOnFailure: true,
  });
  if (failed) {
    const [values, as, sequence] = counterexample ?? [];
    const made = sequence?.filter(({ call }) => call !== "unmerge").map((draw) => JSON.stringify(draw));
    t.fail(
      `seed ${values}, ${as?.join()}\n${made?.join("\n")}\n${errorInstance instanceof Error ? errorInstance.stack : ""}`,
    );
    return;
  }
  t.log(
    [...tally].map(([name, { done, refused }]) => `${name}: ${done} done, ${refused} refused`).join("\n"),
  );
  for (const name of names) t.true((tally.get(name)?.done ?? 0) + (tally.get(name)?.refused ?? 0) > 0, name);
});
