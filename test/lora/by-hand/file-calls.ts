/** Calls that write adapters and read them. */
import { join } from "node:path";

import { lora, safetensors } from "../../../src/index.js";
import { temporary } from "../../hashed.js";
import { add, choose, type RecordedLayer } from "../record.js";
import { ALPHA } from "../recorded-model.js";
import { holders, known, empty, frozen, type Call } from "./world.js";

export const fileCalls: Record<string, Call> = {
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
};
