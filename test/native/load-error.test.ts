/** Errors for an engine binary that does not load, as an app with the packed tarball gets them. */
import { cpSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { detectPlatform, createLoadError, type Platform } from "../../src/native/load-error.js";
import { installedProject, nodeIn } from "../packed.js";
import { temporary } from "../hashed.js";

/** Prints the code and message of a failing tensor operation. */
const PROGRAM = `import { ones } from "lowrank";
try { ones([1], { device: "cpu" }); console.log("loaded"); }
catch (error) { console.log(error.code, error.message); }`;

/** Copies the tarball's project, to be damaged; returns also the folder of its binary's package. */
function project(): { folder: string; binary: string } {
  const folder = temporary();
  cpSync(installedProject(), folder, { recursive: true });
  writeFileSync(join(folder, "app.mjs"), PROGRAM);
  const name = readdirSync(join(folder, "node_modules")).find((one) => one.startsWith("lowrank-")) as string;
  return { folder, binary: join(folder, "node_modules", name) };
}

test("an intact installation loads", (t) => {
  t.is(nodeIn(project().folder, "app.mjs"), "loaded");
});

test("a missing binary package is named, with the command that installs it", (t) => {
  const { folder, binary } = project();
  rmSync(binary, { recursive: true });
  const version = detectPlatform().version as string;
  const name = `lowrank-${process.platform}-${process.arch}`;
  t.regex(
    nodeIn(folder, "app.mjs"),
    new RegExp(`^ERR_NATIVE_LOAD the package ${name}\\S*, which holds the binary`),
  );
  t.regex(
    nodeIn(folder, "app.mjs"),
    new RegExp(`npm install --no-save ${name}\\S*@${version.replaceAll(".", "\\.")};`),
  );
});

test("a damaged binary is reported with the system's error", (t) => {
  const { folder, binary } = project();
  for (const file of readdirSync(binary).filter((one) => one.endsWith(".node")))
    writeFileSync(join(binary, file), "this is no binary");
  t.regex(
    nodeIn(folder, "app.mjs"),
    /^ERR_NATIVE_LOAD the binary of lowrank-\S+ exists but cannot be loaded \(.*(header|too short|valid).*\); remove the folder/,
  );
});

test("an old libc, a platform without a binary and a blocking system have different errors", (t) => {
  const linux: Platform = { platform: "linux", arch: "x64", glibc: "2.31", version: "1.2.3" };
  const loader = (...causes: string[]): Error =>
    causes.reduceRight<Error | undefined>(
      (cause, message) => new Error(message, { cause }),
      undefined,
    ) as Error;
  const nothing = ["Cannot find native binding. npm has a bug", "Cannot find module './lowrank.wasi.cjs'"];
  const told = (place: Platform, ...causes: string[]): string =>
    createLoadError(loader(...nothing, ...causes), place).message;

  const glibc =
    "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.35' not found (required by /app/lowrank.node)";
  t.regex(
    told(linux, glibc),
    /^the binary of lowrank-linux-x64-gnu needs glibc 2\.35, and this system has 2\.31;/,
  );
  t.regex(
    told({ ...linux, platform: "sunos" }, "Unsupported OS: sunos, architecture: x64"),
    /^there is no binary of lowrank for sunos-x64;/,
  );
  t.regex(told({ ...linux, version: undefined }, glibc), /^lowrank was bundled/);
  t.regex(
    told({ ...linux, platform: "linux", arch: "ia32" }),
    /^there is no binary of lowrank for linux-ia32-gnu;/,
  );
  for (const reason of [
    "/app/lowrank.node: failed to map segment from shared object",
    "Access is denied.",
    "dlopen(/app/lowrank.node): code signature in <0123> not valid for use in process: library load disallowed by system policy",
  ])
    t.regex(told(linux, reason), /^the system blocks the binary of lowrank-linux-x64-gnu/);
  t.regex(
    told({ ...linux, platform: "win32" }, "The specified procedure could not be found."),
    /^the binary of lowrank-win32-x64-msvc exists but cannot be loaded \(The specified procedure/,
  );
});
