// `npm run build`: builds the package into dist/ or another folder. The compiler writes the types, a bundler the
// JavaScript, since importing a module costs a third of a millisecond and there are 240 source files. If dist/ already
// corresponds to the sources it is kept, and another folder gets a copy.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
const source = (name) => join(root, "src", `${name}.ts`);

/** Entries that are imported or run by name and therefore keep their path in dist/. */
const REQUIRED = ["index", "electron/index"];
const ENTRIES = [...REQUIRED, "cli/main", "diagnose/child"];
/** Bundled, because few of their files are used: the hub's packages take twelve megabytes, csv-parse contains five builds. */
const TAKEN_IN = ["@huggingface/hub", "csv-parse", "valibot"];
/** Bundled into the CommonJS build, since it is an ES module that older Node versions cannot require. */
const MODULES_ALONE = "leven";
/** Bundled into the dashboard's page, which loads nothing from the network. */
const CHARTS = "uplot";
/** Replaces `electron/index` in web pages: a separate file without dependencies on Node. */
const PAGE = "electron/browser";
/** The dashboard's page, and its entry point. */
const DASHBOARD = "dashboard/page";

/** Modules with types of hyparquet, which is an optional package. No other declarations import them. */
const OPTIONAL_TYPES = "data/formats/parquet";

/** Writes the types; throws if the sources do not compile. */
function types(folder) {
  const typescript = dirname(createRequire(import.meta.url).resolve("typescript/package.json"));
  const args = [join(typescript, "bin", "tsc"), "-p", join(root, "tsconfig.build.json"), "--outDir", folder];
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  if (status !== 0) throw new Error("the sources do not compile");
  const optional = join(folder, OPTIONAL_TYPES);
  for (const name of readdirSync(optional)) if (/\.d\.ts(\.map)?$/.test(name)) rmSync(join(optional, name));
}

/** Returns a module and all modules that it imports statically. */
function eager(graph, id, found = new Set()) {
  if (found.has(id)) return found;
  found.add(id);
  for (const next of graph.get(id) ?? []) eager(graph, next, found);
  return found;
}

/** Returns the licences of the packages bundled into a chunk. */
function licence({ moduleIds }) {
  const ids = moduleIds.map((id) => id.replaceAll("\\", "/"));
  return [...TAKEN_IN, MODULES_ALONE, CHARTS]
    .filter((name) => ids.some((id) => id.includes(`/node_modules/${name}/`)))
    .map(licenceOf)
    .join("");
}

/** Returns the licence of a package, as a comment that minifiers keep. */
function licenceOf(name) {
  const folder = join(root, "node_modules", name);
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
  return `/*! Parts of ${name} ${version}:\n${readFileSync(join(folder, file), "utf8")}*/\n`;
}

/** Bundles entries by name, with further bundler options `more` and output options `output`. Returns the written chunks. */
async function bundle(folder, names, more, output) {
  const bundler = await rolldown({
    cwd: root,
    input: Object.fromEntries(names.map((name) => [name, source(name)])),
    external: (id) => !TAKEN_IN.includes(id) && !id.startsWith(".") && !isAbsolute(id),
    treeshake: { moduleSideEffects: (id) => !id.includes("@huggingface") && !id.includes("/valibot/") },
    onLog(level, { message }) {
      if (level === "warn") throw new Error(message);
    },
    ...more,
  });
  const written = await bundler.write({
    dir: folder,
    format: "esm",
    // Errors and reports contain class names.
    keepNames: true,
    // The types carry the documentation; comments would add half a megabyte.
    comments: { jsdoc: false },
    entryFileNames: "[name].js",
    chunkFileNames: "[name]-[hash].js",
    banner: licence,
    ...output,
  });
  await bundler.close();
  return written.output;
}

/**
 * Writes the JavaScript. Modules that are needed before the library is loaded form one chunk, and modules that the library
 * imports statically another; the rest is split by dynamic import. Chunks are in `folder` itself, where the relative paths
 * to the package's other files are valid. No chunk contains the command line's entry, which runs when imported.
 */
async function code(folder) {
  const graph = new Map();
  const sets = {};
  const reader = {
    name: "graph",
    moduleParsed: ({ id, importedIds }) => void graph.set(id, importedIds),
    buildEnd() {
      sets.library = eager(graph, source("index"));
      // Runs without the library: the command line's help, and a page's end of a port.
      sets.light = eager(graph, source("cli/main"), eager(graph, source("electron/index")));
    },
  };
  const own = ["cli", "electron"].map((name) => join(root, "src", name));
  const groups = [
    {
      name: "base",
      test: (id) => sets.light.has(id) && !own.some((room) => id.startsWith(room)),
      priority: 1,
    },
    { name: "library", test: (id) => sets.library.has(id) },
  ];
  const output = { codeSplitting: { groups } };
  await bundle(folder, ENTRIES, { platform: "node", plugins: [reader] }, output);
  await commonJs(folder, { platform: "node", plugins: [reader] }, output);
  await bundle(folder, [PAGE], { platform: "browser", external: [] }, { codeSplitting: false });
}

/** Writes the dashboard's page: script, style and HTML. */
async function dashboard(folder) {
  const to = join(folder, "dashboard");
  const from = join(root, "src", DASHBOARD);
  const output = { minify: true, codeSplitting: false, keepNames: false };
  for (const name of ["page", "start"]) {
    const external = (id) => name === "start" && id === "./page.js";
    const input = { [name]: source(`${DASHBOARD}/${name}`) };
    await bundle(to, [], { platform: "browser", external, input }, output);
  }
  const charts = readFileSync(join(root, "node_modules", CHARTS, "dist", "uPlot.min.css"), "utf8");
  const own = readFileSync(join(from, "style.css"), "utf8");
  writeFileSync(join(to, "page.css"), `${licenceOf(CHARTS)}${charts}\n${own}`);
  cpSync(join(from, "index.html"), join(to, "index.html"));
}

/**
 * Also writes CommonJS, and an ES module for each entry that imports it. Runtimes that can require ES modules use the ES
 * modules for both `import` and `require` (condition `module-sync`); older ones use CommonJS for both. So classes such as
 * `Tensor` exist only once in either case.
 */
async function commonJs(folder, options, output) {
  const external = (id) =>
    ![...TAKEN_IN, MODULES_ALONE].includes(id) && !id.startsWith(".") && !isAbsolute(id);
  const files = { format: "cjs", entryFileNames: "[name].cjs", chunkFileNames: "[name]-[hash].cjs" };
  // Removes only white space, since the package contains all code twice; names are kept for errors and stack traces.
  const compact = { minify: { mangle: false, compress: false, codegen: true } };
  const chunks = await bundle(
    folder,
    REQUIRED,
    { ...options, external },
    { ...output, ...files, ...compact },
  );
  for (const name of REQUIRED) {
    const { exports } = chunks.find(({ fileName }) => fileName === `${name}.cjs`);
    const own = `./${basename(name)}.cjs`;
    const lines = [`import lowrank from "${own}";`, `export const { ${exports.join(", ")} } = lowrank;`];
    writeFileSync(join(folder, `${name}.mjs`), `${lines.join("\n")}\n`);
    // One declaration of each class for both formats; @ts-ignore is for compilers that cannot require ES modules.
    writeFileSync(join(folder, `${name}.d.cts`), '// @ts-ignore\nexport * from "./index.js";\n');
  }
}

/** Writes the schema of config files. */
function schema(folder) {
  const main = join(root, "scripts", "options", "main.ts");
  const args = ["--import=tsx", main, join(folder, "finetune.schema.json")];
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" });
  if (status !== 0) throw new Error("the schema of config files cannot be written");
}

/** The inputs of dist/; the lock file stands for the compilers. */
const SOURCES = [
  "src",
  "native/binding.d.ts",
  "package.json",
  "package-lock.json",
  "scripts/build.mjs",
  "scripts/options",
  "tsconfig.json",
  "tsconfig.build.json",
];

/** Returns a hash of files and folders, including their names. */
function hashOf(names) {
  const hash = createHash("sha256");
  const add = (path) => {
    if (statSync(path).isDirectory()) {
      for (const name of readdirSync(path).sort()) add(join(path, name));
    } else {
      const bytes = readFileSync(path);
      hash.update(`${path} ${bytes.length}\n`).update(bytes);
    }
  };
  for (const name of names) {
    const path = join(root, name);
    if (existsSync(path)) add(path);
  }
  return hash.digest("hex");
}

async function build(folder) {
  rmSync(folder, { recursive: true, force: true });
  types(folder);
  await code(folder);
  await dashboard(folder);
  schema(folder);
  chmodSync(join(folder, "cli", "main.js"), 0o755);
}

const dist = join(root, "dist");
const built = join(root, "node_modules", ".cache", "lowrank", "dist.sha256");
const folder = resolve(process.argv[2] ?? dist);
// Hashed before the sources are read, so that a change during the build is detected.
const sources = hashOf(SOURCES);
const state = () => `${sources} ${hashOf(["dist"])}`;
const isCurrent = existsSync(built) && readFileSync(built, "utf8") === state();
if (!isCurrent) {
  await build(folder);
} else if (folder !== dist) {
  rmSync(folder, { recursive: true, force: true });
  cpSync(dist, folder, { recursive: true });
}
if (!isCurrent && folder === dist) {
  mkdirSync(dirname(built), { recursive: true });
  writeFileSync(built, state());
}
