/** Locates the programs that tests start as processes. scripts/build-tests.mjs compiles them, so that no process has to. */
import { fileURLToPath } from "node:url";

/** Returns the path of a compiled program by the path of its source, such as `src/cli/main`. */
export function programPath(source: string): string {
  return fileURLToPath(new URL(`../target/tests/programs/${source}.js`, import.meta.url));
}

/** The command line of the package. */
export const CLI = programPath("src/cli/main");
