/** `npm install lowrank`, as after publication; and the remedies of messages if the binary does not load. */
import { execFile } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";

import { LARGEST } from "../scripts/check-binary.mjs";
import { publishedManifest } from "../scripts/packages.mjs";
import { temporary } from "./hashed.js";
// In this process, since packing takes longer than this test.
import "./docs/start.js";
import { npmrc, publish, type Published } from "./published.js";

const PROGRAM = `import { ones } from "lowrank";
try { ones([1], { device: "cpu" }); console.log("loaded"); }
catch (error) { console.log(error.code, error.message); }`;

let served: Published;
test.before(async () => {
  served = await publish();
});
test.after.always(() => served.server.close());

/** Creates a project that depends on the package without having installed it. */
function project(): string {
  const folder = temporary();
  const { version } = publishedManifest();
  const manifest = { private: true, type: "module", dependencies: { lowrank: version } };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  writeFileSync(join(folder, ".npmrc"), npmrc(served));
  writeFileSync(join(folder, "app.mjs"), PROGRAM);
  return folder;
}

/** Runs a line in a shell in the folder; returns its output. */
const type = (folder: string, line: string): Promise<string> =>
  new Promise((done, failed) => {
    // npm passes variables to its scripts, such as this suite, which would refer to another project.
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^npm_|^NODE_OPTIONS$/i.test(name)),
    );
    execFile(line, { cwd: folder, shell: true, encoding: "utf8", env }, (error, stdout, stderr) =>
      error === null ? done(stdout.trim()) : failed(new Error(`${line}: ${stderr}`, { cause: error })),
    );
  });

const binaries = (folder: string): string[] =>
  readdirSync(join(folder, "node_modules")).filter((name) => name.startsWith("lowrank-"));

test("it installs only this platform's binary, and trains", async (t) => {
  const folder = project();
  await type(folder, "npm install");
  t.deepEqual(binaries(folder), [served.here]);
  t.is(await type(folder, "node app.mjs"), "loaded");
  t.regex(await type(folder, "npx lowrank finetune --steps 2 --device cpu"), /^adapter \.[\\/]lowrank-out$/m);
});

test("an installation takes less than 30 MB, with the largest binary that may be published", async (t) => {
  const folder = project();
  await type(folder, "npm install");
  const modules = join(folder, "node_modules");
  const files = readdirSync(modules, { recursive: true, encoding: "utf8" });
  const [binary] = binaries(folder);
  // The binary of this build is not optimised for size.
  const sizes = files
    .filter((name) => !name.startsWith(`${binary}`))
    .map((name) => statSync(join(modules, name)))
    .map((stat) => (stat.isFile() ? stat.size : 0));
  const bytes = sizes.reduce((sum, size) => sum + size, LARGEST);
  t.true(bytes > LARGEST + 8e6, "the package and its dependencies were counted");
  t.true(bytes < 30e6, `${bytes} bytes`);
});

/** Returns the command that a message recommends. */
const advised = (message: string): string =>
  /(npm install --no-save \S+?@[\d.]+\d)/.exec(message)?.[1] ?? `no command in: ${message}`;

/** Checks the message, runs the recommended command, and checks that it helped. */
async function follows(t: ExecutionContext, folder: string, what: RegExp): Promise<void> {
  const message = await type(folder, "node app.mjs");
  t.regex(message, what);
  const [, removed] = /remove the folder (\S+) /.exec(message) ?? [];
  if (removed !== undefined) rmSync(join(folder, removed), { recursive: true });
  await type(folder, advised(message));
  t.is(await type(folder, "node app.mjs"), "loaded");
}

test("installed without optional packages: the recommended command installs the binary", async (t) => {
  const folder = project();
  await type(folder, "npm install --omit=optional");
  t.deepEqual(binaries(folder), []);
  await follows(
    t,
    folder,
    /^ERR_NATIVE_LOAD the package lowrank-\S+, which holds the binary .* is not installed/,
  );
});

test("installed with a lock file of another platform: both recommended commands install the binary", async (t) => {
  const folder = project();
  await type(folder, "npm install");
  // As in lock files of npm before 11, which omit optional packages of other platforms.
  const path = join(folder, "package-lock.json");
  const lock = JSON.parse(readFileSync(path, "utf8")) as { packages: Record<string, unknown> };
  for (const name of Object.keys(lock.packages)) if (name.includes("lowrank-")) delete lock.packages[name];
  writeFileSync(path, JSON.stringify(lock));
  rmSync(join(folder, "node_modules"), { recursive: true });
  await type(folder, "npm install --omit=optional");
  const what = /^ERR_NATIVE_LOAD the package lowrank-\S+, .* lock file was made on another platform/;
  const other = join(temporary(), "copy");
  cpSync(folder, other, { recursive: true });
  await follows(t, folder, what);

  t.regex(
    await type(other, "node app.mjs"),
    /or remove node_modules and package-lock\.json, and npm install$/,
  );
  rmSync(join(other, "node_modules"), { recursive: true });
  rmSync(join(other, "package-lock.json"));
  await type(other, "npm install");
  t.is(await type(other, "node app.mjs"), "loaded");
});

test("installed for another platform, as for the build of an app: the command installs this platform's binary", async (t) => {
  const folder = project();
  const [os, cpu] = process.platform === "win32" ? ["linux", "x64"] : ["win32", "x64"];
  await type(folder, `npm install --os=${os} --cpu=${cpu}`);
  t.deepEqual(binaries(folder).filter((name) => name.includes(`-${os}-`)).length > 0, true);
  t.false(existsSync(join(folder, "node_modules", served.here)));
  await follows(t, folder, /^ERR_NATIVE_LOAD the package lowrank-\S+, which holds the binary/);
});

test("a damaged binary: the recommended command repairs it", async (t) => {
  const folder = project();
  await type(folder, "npm install");
  const place = join(folder, "node_modules", served.here);
  for (const name of readdirSync(place).filter((one) => one.endsWith(".node")))
    writeFileSync(join(place, name), "this is no binary");
  await follows(t, folder, /^ERR_NATIVE_LOAD the binary of lowrank-\S+ exists but cannot be loaded/);
});

test("on a platform without a binary the error lists the supported platforms", async (t) => {
  const folder = project();
  await type(folder, "npm install");
  mkdirSync(join(folder, "other"));
  writeFileSync(
    join(folder, "other", "arch.cjs"),
    'Object.defineProperty(process, "arch", { value: "riscv64" });',
  );
  t.regex(
    await type(folder, `node --require ./other/arch.cjs app.mjs`),
    /^ERR_NATIVE_LOAD there is no binary of lowrank for \w+-riscv64\S*; there are linux-x64-gnu, /,
  );
});
