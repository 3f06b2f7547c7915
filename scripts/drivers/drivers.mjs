// The software GPU drivers that the tests run on, with their environment and their name in the engine.
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { libraries, unpacked } from "./archive.mjs";
import { manifest, swiftshader } from "./swiftshader.mjs";

const SYSTEM = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";

/** Drivers by name: `env(folder)` is the environment that selects a driver, `known` a part of its reported name. */
export const DRIVERS = {
  lavapipe: {
    known: /^llvmpipe Mesa /,
    env() {
      if (!existsSync(SYSTEM))
        throw new Error("lavapipe is not installed: apt-get install mesa-vulkan-drivers");
      return { VK_DRIVER_FILES: SYSTEM };
    },
  },
  "mesa-25": {
    known: /^llvmpipe Mesa 25\./,
    env(folder) {
      const packages = ["mesa-vulkan-drivers", "libdrm2", "libdrm-amdgpu1"];
      const root = unpacked(folder, "bookworm-backports", packages);
      const made = join(folder, "mesa-25");
      mkdirSync(made, { recursive: true });
      const driver = manifest(made, join(libraries(root), "libvulkan_lvp.so"), "1.4.305");
      // Other libraries of the system stay in use.
      const found = [libraries(root), process.env.LD_LIBRARY_PATH].filter(Boolean).join(":");
      return { VK_DRIVER_FILES: driver, LD_LIBRARY_PATH: found };
    },
  },
  swiftshader: {
    known: /^SwiftShader/,
    env: (folder) => ({ VK_DRIVER_FILES: swiftshader(folder) }),
  },
};
