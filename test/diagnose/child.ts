/** The environment of processes whose GPU is broken on purpose. */
import { fileURLToPath } from "node:url";

const preload = fileURLToPath(new URL("broken.mjs", import.meta.url));

/** Operations by how they go wrong on a GPU. */
export type Broken = Record<string, "wrong" | "crash" | "interrupt" | "hang" | "throw">;

/** Variables under which Node loads TypeScript, and operations go wrong. */
export function brokenEnvironment(broken: Broken): Record<string, string> {
  return {
    NODE_OPTIONS: `--import=tsx --import=${preload}`,
    BROKEN: Object.entries(broken)
      .map(([name, way]) => `${name}=${way}`)
      .join(),
  };
}
