// Compiles the tests before ava runs them: each test file is a process of its own, and compiling its modules one by one
// would take each process a second.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The folder of compiled tests, which has the paths of `test/`. */
export const COMPILED = "target/tests";

/** Replaces `import.meta` by the place of the source, because tests and sources locate files relative to themselves. */
const sourceLocations = {
  name: "source-locations",
  setup({ onLoad }) {
    onLoad({ filter: /\.(ts|mjs)$/ }, ({ path }) => {
      const text = readFileSync(path, "utf8");
      const url = JSON.stringify(pathToFileURL(path).href);
      const folder = JSON.stringify(join(path, ".."));
      const contents = text
        .replaceAll("import.meta.url", url)
        .replaceAll("import.meta.dirname", folder)
        .replaceAll("import.meta.filename", JSON.stringify(path));
      return { contents, loader: path.endsWith(".ts") ? "ts" : "js" };
    });
  },
};

/** Compiles all tests with the sources that they import. Packages stay imports. */
export async function buildTests() {
  const names = readdirSync(join(root, "test"), { recursive: true });
  const entryPoints = names
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => join(root, "test", name));
  await build({
    entryPoints,
    outbase: join(root, "test"),
    outdir: join(root, COMPILED),
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node20",
    packages: "external",
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
