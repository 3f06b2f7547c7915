// Compiles the tests before ava runs them. ava starts a process for each test file; a process that compiled the modules
// itself would need a second for it.
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The folder of compiled tests, which has the paths of `test/`. */
export const COMPILED = "target/tests";

/** Programs that tests start as processes. */
const PROGRAMS = [
  "src/cli/main",
  "test/hub/fetching-process",
  "test/process/child",
  "test/train/killed-child",
  "test/train/killed-sweep",
];

/** Gives each module constants with its own location, for files that are located relative to a source. */
const sourceLocations = {
  name: "source-locations",
  setup({ onLoad }) {
    onLoad({ filter: /\.(ts|mjs)$/ }, ({ path }) => {
      const [url, folder] = [pathToFileURL(path).href, dirname(path)].map((text) => JSON.stringify(text));
      // On the first line, so that lines keep their numbers; instead of a line that names an interpreter.
      const text = readFileSync(path, "utf8").replace(/^#!.*/, "");
      return {
        contents: `const SOURCE_URL = ${url}, SOURCE_FOLDER = ${folder}; ${text}`,
        loader: path.endsWith(".ts") ? "ts" : "js",
      };
    });
  },
};

/** Compiles all tests and programs with the sources that they import. Packages stay imports. */
export async function buildTests() {
  const names = readdirSync(join(root, "test"), { recursive: true }).filter((name) =>
    name.endsWith(".test.ts"),
  );
  await build({
    entryPoints: [
      ...names.map((name) => ({ in: join(root, "test", name), out: name.slice(0, -".ts".length) })),
      ...PROGRAMS.map((name) => ({ in: join(root, `${name}.ts`), out: `programs/${name}` })),
    ],
    outdir: join(root, COMPILED),
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node20",
    packages: "external",
    define: { "import.meta.url": "SOURCE_URL", "import.meta.dirname": "SOURCE_FOLDER" },
    // `sideEffects` of package.json is about dist/.
    ignoreAnnotations: true,
    keepNames: true,
    sourcemap: true,
    sourcesContent: false,
    chunkNames: "chunks/[hash]",
    logLevel: "warning",
    tsconfig: join(root, "tsconfig.json"),
    plugins: [sourceLocations],
  });
}
