/**
 * A bundled app. The package finds its binary relative to its own files: as an external package it runs, and in a
 * bundle it reports that on first use, with any bundler.
 */
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { nodeResolve } from "@rollup/plugin-node-resolve";
import test from "ava";
import { build as esbuild } from "esbuild";
import { rolldown } from "rolldown";
import { rollup } from "rollup";
import { build as vite } from "vite";
import webpack from "webpack";

import { temporary } from "./hashed.js";
import { installedProject, nodeIn } from "./packed.js";

/** File extensions of each module format. */
const FORMATS = { esm: "mjs", cjs: "cjs" } as const;
type Format = keyof typeof FORMATS;
const formats = Object.keys(FORMATS) as Format[];
const fileOf = (name: string, format: Format): string => `${name}.${FORMATS[format]}`;

interface App {
  /** The project's folder, whose app.mjs uses the package. */
  folder: string;
  /** The name of the bundles in that folder, without the extension of their format. */
  name: string;
  /** Whether the package is external. */
  external: boolean;
}

/** Bundles for each format, as documented by each bundler for programs of Node. */
const BUNDLERS: Record<string, (app: App) => Promise<void>> = {
  async esbuild({ folder, name, external }) {
    for (const format of formats)
      await esbuild({
        entryPoints: [join(folder, "app.mjs")],
        outfile: join(folder, fileOf(name, format)),
        bundle: true,
        platform: "node",
        format,
        external: external ? ["lowrank"] : [],
        logLevel: "silent",
      });
  },
  async Rollup({ folder, name, external }) {
    const bundle = await rollup({
      input: join(folder, "app.mjs"),
      plugins: [nodeResolve({ exportConditions: ["node"] })],
      external: external ? ["lowrank"] : [],
      onLog() {},
    });
    for (const format of formats)
      await bundle.write({ dir: folder, entryFileNames: fileOf(name, format), format });
    await bundle.close();
  },
  async Rolldown({ folder, name, external }) {
    const bundle = await rolldown({
      input: join(folder, "app.mjs"),
      cwd: folder,
      platform: "node",
      external: external ? ["lowrank"] : [],
      onLog() {},
    });
    for (const format of formats)
      await bundle.write({ dir: folder, entryFileNames: fileOf(name, format), format });
    await bundle.close();
  },
  async Vite({ folder, name, external }) {
    await vite({
      root: folder,
      configFile: false,
      logLevel: "silent",
      ssr: external ? { external: ["lowrank"] } : { noExternal: true },
      build: {
        ssr: join(folder, "app.mjs"),
        outDir: folder,
        emptyOutDir: false,
        rolldownOptions: {
          output: formats.map((format) => ({ format, entryFileNames: fileOf(name, format) })),
        },
      },
    });
  },
  async webpack({ folder, name, external }) {
    for (const format of formats) {
      const esm = format === "esm";
      const compiler = webpack({
        mode: "production",
        context: folder,
        entry: join(folder, "app.mjs"),
        target: "node20",
        experiments: { outputModule: esm },
        output: {
          path: folder,
          filename: fileOf(name, format),
          ...(esm ? { library: { type: "module" } } : {}),
        },
        ...(external ? { externals: { lowrank: esm ? "module lowrank" : "commonjs lowrank" } } : {}),
      });
      await new Promise<void>((done, failed) => {
        compiler?.run((error, stats) => {
          if (error !== null) failed(error);
          else if (stats?.hasErrors() === true) failed(new Error(stats.toString("errors-only")));
          else compiler.close(() => done());
        });
      });
    }
  },
};

/** Prints the code and message of a failing tensor operation. */
const PROGRAM = `import { ones } from "lowrank";
try { ones([1], { device: "cpu" }); console.log("loaded"); }
catch (error) { console.log(error.code, error.message); }`;

/** Creates a project with the published package; like an app, it runs in another folder than it was built in. */
function project(): string {
  const folder = temporary();
  writeFileSync(join(folder, "app.mjs"), PROGRAM);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  const [from, to] = [join(installedProject(), "node_modules"), join(folder, "node_modules")];
  mkdirSync(to);
  for (const name of readdirSync(from)) symlinkSync(join(from, name), join(to, name), "junction");
  rmSync(join(to, "lowrank"));
  cpSync(join(from, "lowrank"), join(to, "lowrank"), { recursive: true });
  return folder;
}

for (const [bundler, bundle] of Object.entries(BUNDLERS)) {
  // Serial, since a bundler takes a core and much memory.
  test.serial(
    `${bundler}: a bundle with the package as external runs, and one that contains it says so`,
    async (t) => {
      const folder = project();
      await bundle({ folder, name: "out", external: true });
      for (const format of formats) t.is(nodeIn(folder, fileOf("out", format)), "loaded", format);
      await bundle({ folder, name: "in", external: false });
      rmSync(join(folder, "node_modules"), { recursive: true });
      for (const format of formats)
        t.regex(nodeIn(folder, fileOf("in", format)), /^ERR_NATIVE_LOAD lowrank was bundled/, format);
    },
  );
}
