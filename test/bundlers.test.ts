/**
 * An app that is bundled. The package finds its binary by its own place on disk: left out of the bundle it runs, and
 * taken in it says so when it is first used, whichever bundler it was.
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

interface App {
  /** The project's folder, whose app.mjs uses the package. */
  folder: string;
  /** The name of the bundle to write there, which ends as its format asks for. */
  out: string;
  format: "esm" | "cjs";
  /** Whether the package is left out. */
  external: boolean;
}

/** Bundles as the documentation of each says for a program of Node's. */
const BUNDLERS: Record<string, (app: App) => Promise<void>> = {
  async esbuild({ folder, out, format, external }) {
    await esbuild({
      entryPoints: [join(folder, "app.mjs")],
      outfile: join(folder, out),
      bundle: true,
      platform: "node",
      format,
      external: external ? ["lowrank"] : [],
      logLevel: "silent",
    });
  },
  async Rollup({ folder, out, format, external }) {
    const bundle = await rollup({
      input: join(folder, "app.mjs"),
      plugins: [nodeResolve({ exportConditions: ["node"] })],
      external: external ? ["lowrank"] : [],
      onLog() {},
    });
    await bundle.write({ dir: folder, entryFileNames: out, format });
    await bundle.close();
  },
  async Rolldown({ folder, out, format, external }) {
    const bundle = await rolldown({
      input: join(folder, "app.mjs"),
      cwd: folder,
      platform: "node",
      external: external ? ["lowrank"] : [],
      onLog() {},
    });
    await bundle.write({ dir: folder, entryFileNames: out, format });
    await bundle.close();
  },
  async Vite({ folder, out, format, external }) {
    await vite({
      root: folder,
      configFile: false,
      logLevel: "silent",
      ssr: external ? { external: ["lowrank"] } : { noExternal: true },
      build: {
        ssr: join(folder, "app.mjs"),
        outDir: folder,
        emptyOutDir: false,
        rolldownOptions: { output: { format, entryFileNames: out } },
      },
    });
  },
  async webpack({ folder, out, format, external }) {
    const esm = format === "esm";
    const name = esm ? "module lowrank" : "commonjs lowrank";
    const compiler = webpack({
      mode: "production",
      context: folder,
      entry: join(folder, "app.mjs"),
      target: "node20",
      experiments: { outputModule: esm },
      output: { path: folder, filename: out, ...(esm ? { library: { type: "module" } } : {}) },
      ...(external ? { externals: { lowrank: name } } : {}),
    });
    await new Promise<void>((done, failed) => {
      compiler?.run((error, stats) => {
        if (error !== null) failed(error);
        else if (stats?.hasErrors() === true) failed(new Error(stats.toString("errors-only")));
        else compiler.close(() => done());
      });
    });
  },
};

/** Prints the code and message of what a tensor fails by. */
const PROGRAM = `import { ones } from "lowrank";
try { ones([1], { device: "cpu" }); console.log("loaded"); }
catch (error) { console.log(error.code, error.message); }`;

/** A project with the package as it is published; where it is built is not where it runs, as with an app. */
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

for (const [name, bundle] of Object.entries(BUNDLERS)) {
  for (const format of ["esm", "cjs"] as const) {
    test(`${name}, ${format}: a bundle that leaves the package out runs, one that took it in says so`, async (t) => {
      const folder = project();
      const end = format === "esm" ? "mjs" : "cjs";
      await bundle({ folder, out: `out.${end}`, format, external: true });
      t.is(nodeIn(folder, `out.${end}`), "loaded");
      await bundle({ folder, out: `in.${end}`, format, external: false });
      rmSync(join(folder, "node_modules"), { recursive: true });
      t.regex(nodeIn(folder, `in.${end}`), /^ERR_NATIVE_LOAD lowrank was taken into a bundle/);
    });
  }
}
