// `npm run build`: what the package runs by, in dist/ or the folder that is named. The compiler writes the types, a
// bundler the JavaScript: importing a module costs a third of a millisecond, and the sources have 240. Where dist/ holds
// already what they come to, it stays, and another folder gets a copy.
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

/** What is imported or run by its name, which keeps its place in dist/. */
const REQUIRED = ["index", "electron/index"];
const ENTRIES = [...REQUIRED, "cli/main", "diagnose/child"];
/** Taken in, since two of its functions are all that is used, and it would bring twelve megabytes of packages. */
const TAKEN_IN = "@huggingface/hub";
/** Taken into what is required, since it cannot be required itself where Node does not load modules by `require`. */
const MODULES_ALONE = "leven";
/** Taken into the dashboard's page, which loads nothing from elsewhere. */
const CHARTS = "uplot";
/** What a page takes in place of `electron/index`: a file of its own, with nothing of Node. */
const PAGE = "electron/browser";
/** The dashboard: its page, and what starts it where it is served. */
const DASHBOARD = "dashboard/page";

/** Modules that name types of hyparquet, which is an optional package. No other declaration imports theirs. */
const OPTIONAL_TYPES = "data/formats/parquet";

/** Writes the types; throws where the sources do not compile. */
function types(folder) {
  const typescript = dirname(createRequire(import.meta.url).resolve("typescript/package.json"));
  const args = [join(typescript, "bin", "tsc"), "-p", join(root, "tsconfig.build.json"), "--outDir", folder];
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  if (status !== 0) throw new Error("the sources do not compile");
  const optional = join(folder, OPTIONAL_TYPES);
  for (const name of readdirSync(optional)) if (/\.d\.ts(\.map)?$/.test(name)) rmSync(join(optional, name));
}

/** A module and those that are loaded with it. */
function eager(graph, id, found = new Set()) {
  if (found.has(id)) return found;
  found.add(id);
  for (const next of graph.get(id) ?? []) eager(graph, next, found);
  return found;
}

/** The licence of what a chunk has taken in, in front of it. */
function licence({ moduleIds }) {
  const ids = moduleIds.map((id) => id.replaceAll("\\", "/"));
  return [TAKEN_IN, MODULES_ALONE, CHARTS]
    .filter((name) => ids.some((id) => id.includes(`/node_modules/${name}/`)))
    .map(licenceOf)
    .join("");
}

/** The licence of a package, as a comment that minifiers keep. */
function licenceOf(name) {
  const folder = join(root, "node_modules", name);
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
  return `/*! Parts of ${name} ${version}:\n${readFileSync(join(folder, file), "utf8")}*/\n`;
}

/**
 * Bundles entries by their names; `more` are the bundler's options besides, `output` those of what it writes. Returns the
 * chunks that were written.
 */
async function bundle(folder, names, more, output) {
  const bundler = await rolldown({
    cwd: root,
    input: Object.fromEntries(names.map((name) => [name, source(name)])),
    external: (id) => id !== TAKEN_IN && !id.startsWith(".") && !isAbsolute(id),
    treeshake: { moduleSideEffects: (id) => !id.includes("@huggingface") },
    onLog(level, { message }) {
      if (level === "warn") throw new Error(message);
    },
    ...more,
  });
  const written = await bundler.write({
    dir: folder,
    format: "esm",
    // Errors and reports call a layer by its class.
    keepNames: true,
    entryFileNames: "[name].js",
    chunkFileNames: "[name]-[hash].js",
    banner: licence,
    ...output,
  });
  await bundler.close();
  return written.output;
}

/**
 * Writes the JavaScript. What starts without the library takes of it is one file, and what the library loads besides
 * another; the rest is parted as it is imported. Chunks lie in `folder` itself, from where they find the package's other
 * files, and none is part of the command line's own, which runs when it is imported.
 */
async function code(folder) {
  const graph = new Map();
  const sets = {};
  const reader = {
    name: "graph",
    moduleParsed: ({ id, importedIds }) => void graph.set(id, importedIds),
    buildEnd() {
      sets.library = eager(graph, source("index"));
      // What runs without the library: the command line's help, and a page's end of a port.
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

/** Writes the dashboard's page: its code, its style and its frame. */
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
 * Writes the same as CommonJS, and a module for each entry that imports it. A runtime that loads modules by `require`
 * takes the modules for both `import` and `require` (the condition `module-sync`), and an older one CommonJS for both:
 * classes such as `Tensor` are the same in either case.
 */
async function commonJs(folder, options, output) {
  const external = (id) => id !== TAKEN_IN && id !== MODULES_ALONE && !id.startsWith(".") && !isAbsolute(id);
  const files = { format: "cjs", entryFileNames: "[name].cjs", chunkFileNames: "[name]-[hash].cjs" };
  // Without white space, since the package holds all of the code twice; names stay, for errors and stack traces.
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
    // One declaration of each class for both. A compiler that knows of no `require` of modules accepts it, too.
    writeFileSync(join(folder, `${name}.d.cts`), '// @ts-ignore\nexport * from "./index.js";\n');
  }
}

/** What dist/ is made from: the compilers are those of the lock file. */
const SOURCES = [
  "src",
  "native/binding.d.ts",
  "package.json",
  "package-lock.json",
  "scripts/build.mjs",
  "tsconfig.json",
  "tsconfig.build.json",
];

/** A hash of files and folders, and of what they are called. */
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
  chmodSync(join(folder, "cli", "main.js"), 0o755);
}

const dist = join(root, "dist");
const built = join(root, "node_modules", ".cache", "lowrank", "dist.sha256");
const folder = resolve(process.argv[2] ?? dist);
// Of the sources before they are read: one that changes meanwhile is another.
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
