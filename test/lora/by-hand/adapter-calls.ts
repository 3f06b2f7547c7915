/** Calls that add, remove and activate adapters, and select the trained tensors. */
import { lora } from "../../../src/index.js";
import { add, choose, drop, normsOf, type RecordedLayer } from "../record.js";
import { ALPHA, fillAdapter, kindOf, pathOf, put } from "../recorded-model.js";
import { hasMagnitudes, known, empty, frozen, lowLayer, type Call } from "./world.js";

export const adapterCalls: Record<string, Call> = {
  inject: (world, { name, layers, on, r, dora }) => ({
    act: () =>
      lora.inject(world.bag, {
        name,
        r,
        loraAlpha: ALPHA,
        active: on,
        useDora: dora,
        targetModules: layers.map(pathOf),
      }),
    expected: known(world, name)
      ? ["ERR_ADAPTER_EXISTS"]
      : layers.length === 0
        ? ["ERR_NO_TARGETS"]
        : // This would also change the slices that are not enabled.
          dora && layers.some((at) => world.bag.layer(at) instanceof lora.MergedLinear)
          ? ["ERR_OPTION"]
          : async () => {
              const counts = on || empty(world);
              frozen(world);
              for (const at of layers) {
                const layer = world.record.get(at) as RecordedLayer;
                add(layer, name, { delta: new Float64Array(layer.weight.length), trainable: true });
                if (counts) choose(layer, [...layer.active, { name, weight: 1 }]);
                const kind = kindOf(at);
                const filled = await fillAdapter(lowLayer(world, at), kind, name, world.values);
                layer.adapters.set(name, { ...filled, trainable: true });
                if (dora !== (filled.magnitude !== undefined)) throw new Error(`${at}: DoRA is not as asked`);
                for (const [i, norm] of normsOf(kind, layer.weight).entries())
                  if (dora && !(Math.abs(norm - (filled.magnitude?.[i] ?? NaN)) < 1e-5 * (1 + norm)))
                    throw new Error(`${at}: magnitude ${i} starts at ${filled.magnitude?.[i]}, not ${norm}`);
              }
            },
  }),
  "inject into missing layers": (world) => ({
    act: () => lora.inject(world.bag, { name: "new", targetModules: ["nowhere"] }),
    expected: ["ERR_NO_TARGETS"],
  }),
  "inject with missing modulesToSave": (world, { layers }) => ({
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
  addWeightedAdapter: (world, { name, other, weight, on }) => {
    const fresh = on ? "c" : "sum";
    const weights = name === other ? { [name]: weight } : { [name]: weight, [other]: 1 };
    return {
      act: () => lora.addWeightedAdapter(world.bag, fresh, weights, { combination: "cat" }),
      expected: known(world, fresh)
        ? ["ERR_ADAPTER_EXISTS"]
        : !Object.keys(weights).every((one) => known(world, one))
          ? ["ERR_UNKNOWN_ADAPTER"]
          : Object.keys(weights).some((one) => hasMagnitudes(world, one))
            ? ["ERR_OPTION"]
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
  "a layer added by hand later": (world, { layers, r, slot }) => {
    const at = layers[0];
    if (at === undefined) return { act: () => undefined, expected: undefined };
    const as = slot === 0 ? "plain" : slot === 1 ? "hand" : "bare";
    return {
      act: async () => {
        const old = world.bag.layer(at);
        const { training } = world.bag;
        const record = await put(world.bag, kindOf(at), as, r, world.values);
        // As in PyTorch, a new layer is in training mode until changed.
        world.bag.layer(at).training = training;
        world.record.set(at, record);
        old.dispose();
      },
      expected: () => {},
    };
  },
  "an argument of the wrong type": (world, { slot }) => ({
    act: () =>
      slot === 0
        ? lora.setAdapter(world.bag, 5 as never)
        : slot === 1
          ? lora.inject(world.bag, { rank: 3 } as never)
          : lora.merge(world.bag, null as never),
    expected: ["ERR_OPTION"],
  }),
};
