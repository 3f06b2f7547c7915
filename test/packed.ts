/** The package as published: packed by npm, and unpacked as in another project. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { pack, publishedManifest, stageMain } from "../scripts/packages.mjs";
import { temporary } from "./hashed.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const require = createRequire(import.meta.url);

let project: string | undefined;

/**
 * Returns the folder of a project that has the package in its node_modules, from its tarball, with its dependencies
 * and with this platform's binary as a separate package. Created once a process, from the compiled files.
 */
export function installedProject(): string {
  if (project !== undefined) return project;
  const staged = join(temporary(), "staged");
  mkdirSync(staged);
  execFileSync(process.execPath, [join(root, "scripts", "build.mjs"), join(staged, "dist")]);
  stageMain(join(staged, "package"), join(staged, "dist"));
  const tarball = pack(join(staged, "package"), staged);

  const folder = temporary();
  const modules = join(folder, "node_modules");
  mkdirSync(modules);
  execFileSync("tar", ["-xzf", tarball, "-C", folder]);
  cpSync(join(folder, "package"), join(modules, "lowrank"), { recursive: true });
  const { version, dependencies } = publishedManifest();
  for (const name of Object.keys(dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(root, "node_modules", name), join(modules, name), "junction");
  }
  // lowrank.linux-x64-gnu.node is the content of the package lowrank-linux-x64-gnu.
  const binary = readdirSync(join(root, "native")).find((name) => name.endsWith(".node")) as string;
  const name = binary.replace(/\.node$/, "").replace(".", "-");
  mkdirSync(join(modules, name));
  cpSync(join(root, "native", binary), join(modules, name, binary));
  writeFileSync(join(modules, name, "package.json"), JSON.stringify({ name, version, main: binary }));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  return (project = folder);
}

/** Runs a TypeScript file of a project, with the project's own imports; returns its output. */
export function runIn(folder: string, file: string, args: readonly string[] = []): string {
  const tsx = pathToFileURL(require.resolve("tsx")).href;
  return execFileSync(process.execPath, ["--import", tsx, file, ...args], {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: "" },
  });
}

/** Runs a file of a project with Node alone; returns its output. */
export function nodeIn(folder: string, file: string, args: readonly string[] = []): string {
  const env = { ...process.env, NODE_OPTIONS: "" };
  return execFileSync(process.execPath, [file, ...args], { cwd: folder, encoding: "utf8", env }).trim();
}
