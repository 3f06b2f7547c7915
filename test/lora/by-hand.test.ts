/**
 * Every function over a whole model, for layers that are made by hand, injected, or both, of every kind: random
 * sequences of calls, after each of which the model is as a plain record says. A call that is refused changes nothing.
 */
import { join } from "node:path";

import test from "ava";
import fc from "fast-check";

import {
  lora,
  LowrankError,
  manualSeed,
  memory,
  noGrad,
  safetensors,
  scope,
  tensor,
} from "../../src/index.js";
import { temporary } from "../hashed.js";
import { add, choose, drop, kinds, takeOff, type Recorded, type RecordedLayer } from "./record.js";
import {
  ALPHA,
  Bag,
  differs,
  fillAdapter,
  fingerprint,
  isLow,
  kindOf,
  outputsDiffer,
  pathOf,
  put,
  Values,
} from "./recorded-model.js";

/** What a call is drawn from: each takes of it what it needs. */
interface Draw {
  call: string;
  name: string;
  other: string;
  layers: string[];
  weight: number;
  on: boolean;
  r: number;
  bias: "none" | "all" | "lora_only";
  slot: number;
  /** Which of those there are is meant, mostly; below 0 whatever the others say. */
  pick: number;
}

/** An adapter on disk. */
interface Slot {
  path: string;
  deltas: Map<string, Float64Array>;
  /** Whether it is a file of loralib's. */
  loralib: boolean;
}

interface World {
  bag: Bag;
  record: Recorded;
  values: Values;
  slots: Map<number, Slot>;
  /** Whether biases are trained in place: a file holds them then, and gives an adapter copies of its own. */
  marked: boolean;
  made: { dispose(): void }[];
}

/** What a call should do: change the record, or be refused with one of these codes; undefined where it does not apply. */
type Expected = (() => void | Promise<void>) | string[] | undefined;

/** One call, and what it should do. */
type Call = (world: World, draw: Draw) => { act: () => unknown; expected: Expected };

const holders = ({ record }: World, name: string): [string, RecordedLayer][] =>
  [...record].filter(([, layer]) => layer.adapters.has(name));
const known = (world: World, name: string): boolean => holders(world, name).length > 0;
const empty = (world: World): boolean =>
  [...world.record.values()].every(({ adapters }) => adapters.size === 0);

function frozen({ record }: World): void {
  for (const layer of record.values()) Object.assign(layer, { weightGrad: false, biasGrad: false });
}

function lowLayer({ bag }: World, name: string) {
  const layer = bag.layer(name);
  if (!isLow(layer)) throw new Error(`${name} is no low-rank layer`);
  return layer;
}

const calls: Record<string, Call> = {
  inject: (world, { name, layers, on, r }) => ({
    act: () =>
      lora.inject(world.bag, { name, r, loraAlpha: ALPHA, active: on, targetModules: layers.map(pathOf) }),
    expected: known(world, name)
      ? ["ERR_ADAPTER_EXISTS"]
      : layers.length === 0
        ? ["ERR_NO_TARGETS"]
        : () => {
            const counts = on || empty(world);
            frozen(world);
            for (const at of layers) {
              const layer = world.record.get(at) as RecordedLayer;
              add(layer, name, { delta: new Float64Array(layer.weight.length), trainable: true });
              if (counts) choose(layer, [...layer.active, { name, weight: 1 }]);
              const filled = fillAdapter(lowLayer(world, at), kindOf(at), name, world.values);
              layer.adapters.set(name, { delta: filled, trainable: true });
            }
          },
  }),
  "inject what is not there": (world) => ({
    act: () => lora.inject(world.bag, { name: "new", targetModules: ["nowhere"] }),
    expected: ["ERR_NO_TARGETS"],
  }),
  "inject with modules that are not there": (world, { layers }) => ({
    act: () =>
      lora.inject(world.bag, { name: "new", targetModules: layers.map(pathOf), modulesToSave: ["nowhere"] }),
    expected: ["ERR_NO_TARGETS"],
  }),
  setAdapter: (world, { name, other, weight, on, slot }) => {
    const names =
      slot === 0 ? { [name]: 1 } : name === other ? { [name]: weight } : { [name]: weight, [other]: 1 };
    const trainable = slot === 2 ? on : undefined;
    const active = Object.entries(names).map(([one, share]) => ({ name: one, weight: share }));
    return {
      act: () =>
        lora.setAdapter(world.bag, slot === 0 ? name : names, trainable === undefined ? {} : { trainable }),
      expected: active.every((one) => known(world, one.name))
        ? () => {
            for (const layer of world.record.values()) {
              choose(layer, active);
              if (trainable === undefined) continue;
              for (const [own, adapter] of layer.adapters)
                adapter.trainable = trainable && active.some((one) => one.name === own);
            }
          }
        : ["ERR_UNKNOWN_ADAPTER"],
    };
  },
  "setAdapter twice": (world, { name }) => ({
    act: () => lora.setAdapter(world.bag, [name, name]),
    expected: known(world, name) ? ["ERR_OPTION"] : ["ERR_UNKNOWN_ADAPTER"],
  }),
  deleteAdapter: (world, { name }) => ({
    act: () => lora.deleteAdapter(world.bag, name),
    expected: known(world, name)
      ? () => {
          for (const layer of world.record.values()) drop(layer, name);
        }
      : ["ERR_UNKNOWN_ADAPTER"],
  }),
  merge: (world, { on }) => ({
    act: () => lora.merge(world.bag, { safe: on }),
    expected: () => {
      for (const layer of world.record.values()) if (layer.active.length > 0) layer.merged = true;
    },
  }),
  "merge what is not finite": (world, { layers }) => {
    const at = layers.find((one) => {
      const layer = world.record.get(one);
      return layer !== undefined && layer.active.some(({ weight }) => weight !== 0) && !layer.merged;
    });
    if (at === undefined) return { act: () => undefined, expected: undefined };
    return {
      act: async () => {
        const layer = lowLayer(world, at);
        const one = layer.adapterOf((layer.active[0] as { name: string }).name).loraB;
        const before = (await one.data()) as Float32Array;
        const write = (values: Float32Array): void =>
          noGrad(() => scope(() => void one.copy(tensor(values, { shape: one.shape, device: "cpu" }))));
        write(new Float32Array(one.size).fill(NaN));
        try {
          await (before.length % 2 === 0 ? lora.merge(world.bag) : lora.mergeAndUnload(world.bag));
        } finally {
          write(before);
        }
      },
      expected: ["ERR_NOT_FINITE"],
    };
  },
  unmerge: (world) => ({
    act: () => lora.unmerge(world.bag),
    expected: () => {
      for (const layer of world.record.values()) layer.merged = false;
    },
  }),
  unload: (world) => ({
    act: () => lora.unload(world.bag),
    expected: () => {
      for (const layer of world.record.values()) {
        Object.assign(layer, { active: [], merged: false });
        for (const name of [...layer.adapters.keys()]) drop(layer, name);
      }
    },
  }),
  mergeAndUnload: (world, { on }) => {
    // Of layers made by hand the weight may be shared: it is the caller's.
    const weights = [...world.record]
      .filter(([, layer]) => layer.active.length > 0 && layer.as !== "injected")
      .map(([at]) => lowLayer(world, at).baseWeight);
    return {
      act: async () => {
        const sum = await outputsDiffer(world.bag, world.record);
        await lora.mergeAndUnload(world.bag, { safe: on });
        const again = await outputsDiffer(world.bag, world.record);
        if (sum ?? again) throw new Error(`${sum ?? again}`);
      },
      expected: async () => {
        world.made.push(...weights);
        for (const [at, layer] of world.record) {
          if (layer.active.length > 0) {
            const { weight } = world.bag.layer(at);
            Object.assign(layer, { weight: await weight.data(), weightGrad: false });
          }
          layer.adapters.clear();
          layer.active = [];
          takeOff(layer);
        }
      },
    };
  },
  train: (world) => ({
    act: () => world.bag.train(),
    expected: () => {
      for (const layer of world.record.values())
        if (layer.mergeWeights && layer.active.length > 0) layer.merged = false;
    },
  }),
  eval: (world) => ({
    act: () => world.bag.eval(),
    expected: () => {
      for (const layer of world.record.values())
        if (layer.mergeWeights && layer.active.length > 0) layer.merged = true;
    },
  }),
  withoutAdapters: (world, { on }) => ({
    act: async () => {
      const wrong = await lora.withoutAdapters(world.bag, () => outputsDiffer(world.bag, world.record, true));
      if (wrong !== undefined) throw new Error(wrong);
      if (on)
        try {
          lora.withoutAdapters(world.bag, () => {
            throw new RangeError("of the caller");
          });
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
        }
    },
    expected: () => {},
  }),
  saveAdapter: (world, { name, slot }) => {
    const path = temporary();
    if (world.marked) return { act: () => undefined, expected: undefined };
    return {
      act: () => lora.saveAdapter(world.bag, path, { name }),
      expected: known(world, name)
        ? () => {
            const deltas = holders(world, name).map(([at, { adapters }]) => [at, adapters.get(name)?.delta]);
            world.slots.set(slot, {
              path: name === "default" ? path : join(path, name),
              deltas: new Map(deltas as [string, Float64Array][]),
              loralib: false,
            });
          }
        : ["ERR_UNKNOWN_ADAPTER"],
    };
  },
  loadAdapter: (world, { name, slot, on }) => {
    const from = world.slots.get(slot);
    if (from === undefined)
      return {
        act: () => lora.loadAdapter(world.bag, "/nowhere"),
        expected: ["ERR_FILE_NOT_FOUND", "ERR_ADAPTER_EXISTS"],
      };
    const reading = from.loralib ? { loraAlpha: ALPHA, enableLora: [true, false, true] } : {};
    return {
      act: () => lora.loadAdapter(world.bag, from.path, { name, trainable: on, ...reading }),
      expected: known(world, name)
        ? ["ERR_ADAPTER_EXISTS"]
        : () => {
            const counts = empty(world);
            frozen(world);
            for (const [at, delta] of from.deltas) {
              const layer = world.record.get(at) as RecordedLayer;
              add(layer, name, { delta, trainable: on });
              if (counts) choose(layer, [{ name, weight: 1 }]);
            }
          },
    };
  },
  hotSwap: (world, { name, slot }) => {
    const from = world.slots.get(slot);
    if (from === undefined || !known(world, name))
      return {
        act: () => lora.hotSwap(world.bag, from?.path ?? "/nowhere", { name }),
        expected: known(world, name) ? ["ERR_FILE_NOT_FOUND"] : ["ERR_UNKNOWN_ADAPTER"],
      };
    const own = holders(world, name);
    const merged = own.some(([, layer]) => layer.merged && layer.active.some((one) => one.name === name));
    const fits = own.length === from.deltas.size && own.every(([at]) => from.deltas.has(at));
    const reading = from.loralib ? { loraAlpha: ALPHA, enableLora: [true, false, true] } : {};
    const refused = ["ERR_OPTION", "ERR_UNMATCHED_KEY", "ERR_SHAPE_MISMATCH"];
    const done = (): void => {
      for (const [at, layer] of own)
        (layer.adapters.get(name) as { delta: Float64Array }).delta = from.deltas.get(at) as Float64Array;
    };
    return {
      act: () => lora.hotSwap(world.bag, from.path, { name, ...reading }),
      // A larger rank, or another form, is refused: both may be where sums were made.
      expected: merged || !fits ? refused : Object.assign(done, { or: refused }),
    };
  },
  addWeightedAdapter: (world, { name, other, weight, on }) => {
    const fresh = on ? "c" : "sum";
    const weights = name === other ? { [name]: weight } : { [name]: weight, [other]: 1 };
    return {
      act: () => lora.addWeightedAdapter(world.bag, fresh, weights, { combination: "cat" }),
      expected: known(world, fresh)
        ? ["ERR_ADAPTER_EXISTS"]
        : !Object.keys(weights).every((one) => known(world, one))
          ? ["ERR_UNKNOWN_ADAPTER"]
          : () => {
              for (const layer of world.record.values()) {
                const parts = Object.entries(weights).filter(([one]) => layer.adapters.has(one));
                if (parts.length === 0) continue;
                const delta = new Float64Array(layer.weight.length);
                for (const [one, share] of parts)
                  for (const [i, value] of (layer.adapters.get(one)?.delta ?? []).entries())
                    delta[i] = (delta[i] as number) + share * value;
                add(layer, fresh, { delta, trainable: false });
              }
            },
    };
  },
  markOnlyLoraAsTrainable: (world, { bias }) => ({
    act: () => lora.markOnlyLoraAsTrainable(world.bag, bias),
    expected: () => {
      world.marked = bias !== "none";
      for (const layer of world.record.values()) {
        layer.weightGrad = false;
        layer.biasGrad =
          layer.bias !== null && (bias === "all" || (bias === "lora_only" && layer.as !== "plain"));
        for (const adapter of layer.adapters.values()) adapter.trainable = true;
      }
    },
  }),
  "loraStateDict, saved": (world, { slot }) => {
    const state = lora.loraStateDict(world.bag);
    const plain =
      Object.keys(state).length > 0 && Object.keys(state).every((key) => /\.lora_[AB]$/.test(key));
    if (!plain) return { act: () => undefined, expected: undefined };
    const path = join(temporary(), "lora.safetensors");
    return {
      act: () => safetensors.save(path, state),
      expected: () => {
        const deltas = holders(world, "default").map(([at, { adapters }]) => [
          at,
          adapters.get("default")?.delta,
        ]);
        world.slots.set(slot, {
          path,
          deltas: new Map(deltas as [string, Float64Array][]),
          loralib: true,
        });
      },
    };
  },
  convertAdapter: (world, { slot }) => {
    const from = world.slots.get(slot);
    if (from === undefined || from.loralib) return { act: () => undefined, expected: undefined };
    const path = join(temporary(), "lora.safetensors");
    const deep = from.deltas.has("conv1d") || from.deltas.has("conv3d");
    return {
      act: () => lora.convertAdapter(from.path, path, { format: "loralib", model: world.bag }),
      expected: deep ? ["ERR_OPTION"] : () => {},
    };
  },
  "a layer made by hand, later": (world, { layers, r, slot }) => {
    const at = layers[0];
    if (at === undefined) return { act: () => undefined, expected: undefined };
    const as = slot === 0 ? "plain" : slot === 1 ? "hand" : "bare";
    return {
      act: async () => {
        const old = world.bag.layer(at);
        const { training } = world.bag;
        const record = await put(world.bag, kindOf(at), as, r, world.values);
        // As PyTorch's, a new layer is in training until it is told.
        world.bag.layer(at).training = training;
        world.record.set(at, record);
        old.dispose();
      },
      expected: () => {},
    };
  },
  "a wrong kind of argument": (world, { slot }) => ({
    act: () =>
      slot === 0
        ? lora.setAdapter(world.bag, 5 as never)
        : slot === 1
          ? lora.inject(world.bag, { rank: 3 } as never)
          : lora.merge(world.bag, null as never),
    expected: ["ERR_OPTION"],
  }),
};

const names = Object.keys(calls);

/** Calls that are drawn more often: without them the others have little to work on. */
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
// What a failure is narrowed down to comes first.
const turns = ["unmerge", ...names.flatMap((name) => Array.from({ length: OFTEN[name] ?? 1 }, () => name))];

const draws: fc.Arbitrary<Draw> = fc.record({
  call: fc.constantFrom(...turns),
  name: fc.constantFrom("default", "default", "a", "b", "a", "b", "c"),
  other: fc.constantFrom("default", "default", "a", "b", "a", "b", "c"),
  layers: fc.subarray(kinds.map(({ name }) => name)),
  weight: fc.constantFrom(0.5, -1, 2),
  on: fc.boolean(),
  r: fc.integer({ min: 1, max: 3 }),
  bias: fc.constantFrom("none" as const, "none" as const, "all" as const, "lora_only" as const),
  slot: fc.nat(2),
  pick: fc.integer({ min: -2, max: 9 }),
});

/** How often each call did what it should, and was refused. */
const tally = new Map<string, { done: number; refused: number }>();

/** Calls on an adapter that is there, mostly: of others there is little to see but a refusal. */
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
    const fitting = filled.find((slot) => [...(world.slots.get(slot)?.deltas.keys() ?? [])].join() === own);
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

test("random sequences of 20 calls leave a model of all kinds of layers as a plain record says", async (t) => {
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
      const { tensors } = memory("cpu");
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
