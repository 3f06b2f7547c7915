/** The environment of processes with a deliberately broken GPU. */
import { fileURLToPath } from "node:url";

const preload = fileURLToPath(new URL("broken.mjs", import.meta.url));

/** Operations with their kind of failure on a GPU. */
export type Broken = Record<string, "wrong" | "crash" | "interrupt" | "hang" | "throw">;

/** Returns variables with which Node loads TypeScript, and operations fail. */
export function brokenEnvironment(broken: Broken): Record<string, string> {
  return {
    NODE_OPTIONS: `--import=tsx --import=${preload}`,
    BROKEN: Object.entries(broken)
      .map(([name, way]) => `${name}=${way}`)
      .join(),
  };
}
