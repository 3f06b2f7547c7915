import { homedir } from "node:os";
import { join } from "node:path";
import { buildTests, COMPILED } from "./scripts/build-tests.mjs";

await buildTests();

// Mesa's cache of compiled shaders lies in XDG_CACHE_HOME, which tests set to empty folders for caches of the package.
const { MESA_SHADER_CACHE_DIR = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache") } = process.env;

export default {
  files: ["test/**/*.test.ts"],
  typescript: { rewritePaths: { "test/": `${COMPILED}/` }, compile: false },
  nodeArguments: ["--expose-gc"],
  workerThreads: false,
  concurrency: 2,
  environmentVariables: { MESA_SHADER_CACHE_DIR },
  timeout: "10m",
};
