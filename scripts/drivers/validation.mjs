// Runs the engine's tests under Khronos' validation layer, which checks calls and shaders passed to the driver.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { libraries, newer, unpacked } from "./archive.mjs";

const LAYER = "VK_LAYER_KHRONOS_validation";

/**
 * Known findings. naga gives arrays in workgroup memory a stride, which SPIR-V does not permit there without explicit
 * layouts; drivers ignore it.
 */
export const KNOWN = ["VUID-StandaloneSpirv-None-10684"];

/** Returns the command prefix and environment that run a program under the layer of a newer Debian: `{ start, env }`. */
export function layer(folder) {
  const root = unpacked(folder, "trixie", ["vulkan-validationlayers"]);
  const made = join(folder, "layer");
  mkdirSync(made, { recursive: true });
  const described = {
    file_format_version: "1.2.0",
    layer: {
      name: LAYER,
      type: "GLOBAL",
      library_path: join(libraries(root), "libVkLayer_khronos_validation.so"),
      api_version: "1.4.309",
      implementation_version: "1",
      description: "Validation",
    },
  };
  writeFileSync(join(made, "layer.json"), JSON.stringify(described));
  const settings = ["debug_action = VK_DBG_LAYER_ACTION_LOG_MSG", "report_flags = error,warn,info"];
  writeFileSync(
    join(made, "vk_layer_settings.txt"),
    settings.map((line) => `khronos_validation.${line}\n`).join(""),
  );
  return {
    start: newer(folder, ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"]),
    env: {
      VK_LAYER_PATH: made,
      VK_INSTANCE_LAYERS: LAYER,
      VK_LAYER_SETTINGS_PATH: join(made, "vk_layer_settings.txt"),
    },
  };
}

/** Counts errors and warnings in the layer's output by name: `{ known, other }`, each a map. */
export function findings(wrote) {
  const found = { known: new Map(), other: new Map() };
  for (const [, told] of wrote.matchAll(/Validation (?:Error|Warning|Performance Warning):(.*)/g)) {
    const name = /\[ ?([\w-]+) ?\]/.exec(told)?.[1] ?? "without a name";
    const counts = KNOWN.includes(name) ? found.known : found.other;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return found;
}

/** Whether the layer was active; it prints a line when an instance is created. */
export const isActive = (wrote) => wrote.includes("Khronos Validation Layer Active");
