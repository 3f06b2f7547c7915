/** The published packages and their content. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import test from "ava";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

import {
  MPI_BINARIES,
  TARGETS,
  pack,
  platforms,
  publishedManifest,
  publishedTarballs,
  stageMain,
  stageMpi,
} from "../../scripts/packages.mjs";
import { BINARIES } from "../../src/native/load-error.js";
import { temporary } from "../hashed.js";
import { installedProject } from "../packed.js";
// In this process, so that the package is packed once.
import "./trial.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

test("the main package names every platform's, at its own version, and runs nothing on installation", (t) => {
  const main = publishedManifest();
  const cargo = /^version = "(.*)"/m.exec(readFileSync(join(root, "Cargo.toml"), "utf8"))?.[1];
  t.true(cargo !== undefined && main.version === cargo);
  t.is(platforms().length, 8);
  t.deepEqual(
    main.optionalDependencies,
    Object.fromEntries(platforms().map(({ manifest }) => [manifest.name, main.version])),
  );
  t.false("scripts" in main || "devDependencies" in main);
});

test("a platform's package is for that platform alone", (t) => {
  for (const { name, manifest } of platforms()) {
    const [os, cpu, abi] = name.split("-") as [string, string, string | undefined];
    t.deepEqual([manifest.name, manifest.main], [`lowrank-${name}`, `lowrank.${name}.node`]);
    t.deepEqual([manifest.os, manifest.cpu], [[os], [cpu]]);
    t.deepEqual(manifest.libc, os === "linux" ? [abi === "gnu" ? "glibc" : "musl"] : undefined, name);
    t.deepEqual(manifest.files, [manifest.main]);
    t.is(manifest.version, publishedManifest().version);
  }
});

test("all lists of the platforms agree", (t) => {
  const names = platforms().map(({ name }) => name);
  t.deepEqual([...BINARIES].sort(), names);
  t.deepEqual(Object.keys(TARGETS).sort(), names);
  const { napi } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    napi: { targets: string[] };
  };
  t.deepEqual(
    Object.values(TARGETS)
      .map(({ target }) => target)
      .sort(),
    [...napi.targets].sort(),
  );
  const release = readFileSync(join(root, ".github/workflows/release.yml"), "utf8");
  const built = [...release.matchAll(/platform: (\S+), target: (\S+),/g)].map(([, name, target]) => [
    name,
    target,
  ]);
  t.deepEqual(
    built.sort(),
    names.map((name) => [name, TARGETS[name]?.target]),
  );
});

test("the main package contains only the files that it needs", (t) => {
  const staged = join(temporary(), "main");
  stageMain(staged, join(installedProject(), "node_modules", "lowrank", "dist"));
  const files = execFileSync("tar", ["-tzf", pack(staged, temporary())], { encoding: "utf8" });
  const names = files
    .trim()
    .split("\n")
    .map((name) => name.replace("package/", ""));
  const outside = names.filter((name) => !/^dist\/.*(\.[cm]?js|\.d\.c?ts)$/.test(name)).sort();
  t.deepEqual(outside, [
    "LICENSE",
    "README.md",
    "dist/dashboard/index.html",
    "dist/dashboard/page.css",
    "dist/finetune.schema.json",
    "models/default/README.md",
    "models/default/config.json",
    "models/default/finetune.yaml",
    "models/default/moby-dick-held-out.txt",
    "models/default/moby-dick.txt",
    "models/default/model.safetensors",
    "models/default/tokenizer.json",
    "native/binding.cjs",
    "native/binding.d.ts",
    "package.json",
  ]);
  for (const name of names.filter((one) => one.endsWith(".js")))
    t.notRegex(
      readFileSync(join(staged, name), "utf8"),
      /sourceMappingURL/,
      `${name} names a map that is not there`,
    );
  t.true(names.includes("dist/index.js") && names.includes("dist/cli/main.js"));
  // A module that imports it would run the command line.
  const importers = names.filter(
    (name) => name.endsWith(".js") && readFileSync(join(staged, name), "utf8").includes("cli/main.js"),
  );
  t.deepEqual(importers, []);
});

/** Returns the modules that a chunk imports statically, and all that it imports. */
function importsOf(file: string): { eager: string[]; all: string[] } {
  const text = readFileSync(file, "utf8");
  const found = (pattern: RegExp): string[] => [...text.matchAll(pattern)].map(([, name]) => name as string);
  const eager = found(/^(?:import|export) (?:[^"']* from )?["']([^"']+)["'];$/gm);
  return { eager, all: [...eager, ...found(/\bimport\(["']([^"']+)["']\)/g)] };
}

test("bundled packages are loaded on use, with their licence, and all others are dependencies", (t) => {
  const dist = join(installedProject(), "node_modules", "lowrank", "dist");
  const chunks = readdirSync(dist, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".js"),
  );
  const packages = chunks
    .flatMap((name) => importsOf(join(dist, name)).all)
    .filter((name) => !name.startsWith("."));
  /** Returns the package of an import path; a scoped name has two parts. */
  const packageOf = (name: string): string =>
    name
      .split("/")
      .slice(0, name.startsWith("@") ? 2 : 1)
      .join("/");
  const foreign = [...new Set(packages)].filter((name) => !isBuiltin(name)).map(packageOf);
  t.deepEqual([...new Set(foreign)].sort(), Object.keys(publishedManifest().dependencies).sort());

  const requiring = readdirSync(dist, { encoding: "utf8" }).filter((name) => name.endsWith(".cjs"));
  const required = requiring.flatMap((name) => {
    const text = readFileSync(join(dist, name), "utf8");
    return [...text.matchAll(/\b(?:require|import)\(["`]([^"`$]+)["`]\)/g)].map(([, one]) => one as string);
  });
  const requiredPackages = required
    .filter((name) => !name.startsWith(".") && !isBuiltin(name))
    .map(packageOf);
  // The remaining packages belong to the command line, or are ES modules only, and are bundled.
  const dependencies = Object.keys(publishedManifest().dependencies);
  t.deepEqual(
    dependencies.filter((name) => !requiredPackages.includes(name)),
    ["commander", "leven", "picocolors", "yaml"],
  );
  t.deepEqual(
    requiredPackages.filter((name) => !dependencies.includes(name)),
    [],
  );
  const suggests = requiring.filter((name) =>
    readFileSync(join(dist, name), "utf8").includes("Parts of leven"),
  );
  t.is(suggests.length, 1);

  const hub = chunks.filter((name) => readFileSync(join(dist, name), "utf8").includes("/api/models/"));
  t.is(hub.length, 1);
  const text = readFileSync(join(dist, hub[0] as string), "utf8");
  const { version } = JSON.parse(
    readFileSync(join(root, "node_modules/@huggingface/hub/package.json"), "utf8"),
  ) as { version: string };
  t.true(text.startsWith(`/*! Parts of @huggingface/hub ${version}:\nMIT License`));
  t.true(text.includes("THE SOFTWARE IS PROVIDED"));
  t.true(text.length < 100_000);
  const seen = new Set<string>();
  const visit = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const name of importsOf(file).eager) if (name.startsWith(".")) visit(join(dirname(file), name));
  };
  for (const entry of ["index", "electron/index", "cli/main"]) visit(join(dist, `${entry}.js`));
  t.true(seen.size > 4);
  t.false(seen.has(join(dist, hub[0] as string)));

  // The dashboard's page is a static file; no module that is imported imports it.
  const page = readFileSync(join(dist, "dashboard", "page.js"), "utf8");
  t.regex(page, /^\/\*! Parts of uplot \d+\.\d+\.\d+:\nThe MIT License[^]*THE SOFTWARE IS PROVIDED/);
  t.true(page.length < 100_000);
  t.false(seen.has(join(dist, "dashboard", "page.js")));
});

test("the package passes the checks of publint and similar tools", async (t) => {
  const staged = join(temporary(), "main");
  stageMain(staged, join(installedProject(), "node_modules", "lowrank", "dist"));
  const { messages, pkg } = await publint({ pkgDir: staged, strict: true });
  t.deepEqual(
    messages.map((one) => formatMessage(one, pkg)),
    [],
  );
  const { buffer, byteOffset, byteLength } = readFileSync(pack(staged, temporary()));
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  const result = await checkPackage(createPackageFromTarballData(bytes));
  t.truthy(result.types);
  t.deepEqual("problems" in result ? result.problems : [], []);
});

test("in a bundle classes have the names of their exports", (t) => {
  const program = `import * as m from "lowrank";
    const wrong = (room) => Object.entries(room).filter(([, value]) => typeof value === "function" && /^class\\b/.test(value))
      .map(([name, { name: own }]) => [name, own]).filter(([name, own]) => name !== own);
    console.log(JSON.stringify([m, m.nn, m.lora, m.optim].map(wrong)), Object.keys(m.lora).length);`;
  t.regex(
    execFileSync(process.execPath, ["--input-type=module", "--eval", program], {
      cwd: installedProject(),
      encoding: "utf8",
    }),
    /^\[\[\],\[\],\[\],\[\]\] \d\d$/m,
  );
});

test("lowrank-mpi has the binary of every platform, by the name that it opens, at the main version", (t) => {
  t.deepEqual(
    Object.keys(MPI_BINARIES).filter((name) => !(name in TARGETS)),
    [],
  );
  const from = temporary();
  const binaries = Object.values(MPI_BINARIES).map((name) => join(from, name));
  for (const path of binaries) writeFileSync(path, "");
  const staged = join(temporary(), "staged");
  stageMpi(staged, binaries);
  const folder = temporary();
  execFileSync("tar", ["-xzf", pack(staged, folder), "-C", folder]);
  const packed = readdirSync(join(folder, "package")).toSorted();
  const code = ["LICENSE", "README.md", "index.d.ts", "index.js", "libraries.js", "package.json"];
  t.deepEqual(packed, [...code, ...Object.values(MPI_BINARIES)].toSorted());
  const own = JSON.parse(readFileSync(join(folder, "package", "package.json"), "utf8")) as {
    version: string;
  };
  t.is(own.version, publishedManifest().version);
  const opened = /BINARY = `(.*)`/.exec(readFileSync(join(folder, "package", "index.js"), "utf8"))?.[1];
  t.is(opened, "lowrank-mpi.${process.platform}-${process.arch}.node");
  t.deepEqual(
    Object.values(MPI_BINARIES).toSorted(),
    ["darwin", "linux"].flatMap((os) => ["arm64", "x64"].map((cpu) => `lowrank-mpi.${os}-${cpu}.node`)),
  );
});

test("packages are published together or not at all, the main one last", (t) => {
  const folder = temporary();
  const { version } = publishedManifest();
  const names = [...platforms().map(({ manifest }) => manifest.name), "lowrank-mpi", "lowrank"];
  for (const name of names.slice(1)) writeFileSync(join(folder, `${name}-${version}.tgz`), "");
  const missing = new RegExp(`^ERR: not all packages are there: \\S*${names[0]}-${version}\\.tgz$`);
  t.throws(() => publishedTarballs(folder), { message: missing });
  writeFileSync(join(folder, `${names[0]}-${version}.tgz`), "");
  const tarballs = publishedTarballs(folder);
  t.is(tarballs.length, 10);
  t.is(tarballs.at(-1), join(folder, `lowrank-${version}.tgz`));
});

test("an installed package can be imported and required", (t) => {
  const print = "console.log(typeof m.ones, m.ones([2], { device: 'cpu' }).shape.join())";
  const run = (type: string, program: string): string =>
    execFileSync(process.execPath, [`--input-type=${type}`, "--no-warnings", "--eval", program], {
      cwd: installedProject(),
      encoding: "utf8",
      env: { ...process.env, NODE_OPTIONS: "" },
    }).trim();
  t.is(run("module", `import * as m from "lowrank"; ${print}`), "function 2");
  t.is(run("commonjs", `const m = require("lowrank"); ${print}`), "function 2");
  // There is one library for both: a tensor of one is a tensor of the other.
  const both = `const m = require("lowrank"); import("lowrank").then((n) => console.log(n.Tensor === m.Tensor))`;
  t.is(run("commonjs", both), "true");
});
