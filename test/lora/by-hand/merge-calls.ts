/** Calls that change the weights of the layers, or replace layers of the model. */
import { lora, noGrad, scope, tensor } from "../../../src/index.js";
import { drop, takeOff } from "../record.js";
import { outputsDiffer } from "../recorded-model.js";
import { lowLayer, type Call } from "./world.js";

export const mergeCalls: Record<string, Call> = {
  merge: (world, { on }) => ({
    act: () => lora.merge(world.bag, { safe: on }),
    expected: () => {
      for (const layer of world.record.values()) if (layer.active.length > 0) layer.merged = true;
    },
  }),
  "merge weights that are not finite": (world, { layers }) => {
    const at = layers.find((one) => {
      const layer = world.record.get(one);
      return layer !== undefined && layer.active.some(({ weight }) => weight !== 0) && !layer.merged;
    });
    if (at === undefined) return { act: () => undefined, expected: undefined };
    return {
      act: async () => {
        const layer = lowLayer(world, at);
        const one = layer.findAdapter((layer.active[0] as { name: string }).name).loraB;
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
    // The weight of a layer constructed by hand may be shared, so the caller disposes of it.
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
};
