/** Calls that save and load adapters. */
import { join } from "node:path";

import { lora, safetensors } from "../../../src/index.js";
import { temporary } from "../../hashed.js";
import { add, choose, type RecordedLayer } from "../record.js";
import { ALPHA } from "../recorded-model.js";
import { holders, known, empty, frozen, partsOf, type Call } from "./world.js";

export const fileCalls: Record<string, Call> = {
  saveAdapter: (world, { name, slot }) => {
    const path = temporary();
    if (world.marked) return { act: () => undefined, expected: undefined };
    const dora = new Set([...partsOf(world, name).values()].map(({ magnitude }) => magnitude !== undefined));
    return {
      act: () => lora.saveAdapter(world.bag, path, { name }),
      // PEFT has one useDora for all layers.
      expected:
        dora.size > 1
          ? ["ERR_OPTION"]
          : known(world, name)
            ? () => {
                world.slots.set(slot, {
                  path: name === "default" ? path : join(path, name),
                  parts: partsOf(world, name),
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
            for (const [at, parts] of from.parts) {
              const layer = world.record.get(at) as RecordedLayer;
              add(layer, name, { ...parts, trainable: on });
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
    const fits = own.length === from.parts.size && own.every(([at]) => from.parts.has(at));
    const reading = from.loralib ? { loraAlpha: ALPHA, enableLora: [true, false, true] } : {};
    const refused = ["ERR_OPTION", "ERR_UNMATCHED_KEY", "ERR_SHAPE_MISMATCH"];
    const done = (): void => {
      for (const [at, layer] of own) Object.assign(layer.adapters.get(name) as object, from.parts.get(at));
    };
    return {
      act: () => lora.hotSwap(world.bag, from.path, { name, ...reading }),
      // A larger rank or another form is refused; addWeightedAdapter may have created either.
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
        world.slots.set(slot, {
          path,
          parts: partsOf(world, "default"),
          loralib: true,
        });
      },
    };
  },
  convertAdapter: (world, { slot }) => {
    const from = world.slots.get(slot);
    if (from === undefined || from.loralib) return { act: () => undefined, expected: undefined };
    const path = join(temporary(), "lora.safetensors");
    // loralib supports neither these layers nor magnitudes.
    const beyond =
      from.parts.has("conv1d") ||
      from.parts.has("conv3d") ||
      [...from.parts.values()].some(({ magnitude }) => magnitude !== undefined);
    return {
      act: () => lora.convertAdapter(from.path, path, { format: "loralib", model: world.bag }),
      expected: beyond ? ["ERR_OPTION"] : () => {},
    };
  },
};
