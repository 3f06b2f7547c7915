import { buildTests, COMPILED } from "./scripts/build-tests.mjs";

await buildTests();

export default {
  files: ["test/**/*.test.ts"],
  typescript: { rewritePaths: { "test/": `${COMPILED}/` }, compile: false },
  nodeArguments: ["--expose-gc"],
  workerThreads: false,
  concurrency: 2,
  timeout: "10m",
};
