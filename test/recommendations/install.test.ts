/** The commands of npm that messages recommend, run by npm with a local registry. */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

import test from "ava";

import { temporary } from "../hashed.js";
import { nodeIn } from "../packed.js";
import { npmrc, publish } from "../published.js";

/** Prints the error message of a tensor operation. */
const PROGRAM = `import { ones } from "lowrank";
try { ones([1], { device: "cpu" }); console.log("loaded"); }
catch (error) { console.log(error.message); }`;

/** Creates a project with a program, and npm in it. */
async function project(): Promise<{
  folder: string;
  binary: string;
  npm: (command: string) => Promise<void>;
}> {
  const published = await publish();
  const folder = temporary();
  const config = join(temporary(), "npmrc");
  writeFileSync(config, npmrc(published));
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }');
  writeFileSync(join(folder, "app.mjs"), PROGRAM);
  // The registry is served by this process, which therefore must not block.
  const npm = async (command: string): Promise<void> => {
    const [name, ...args] = command.split(" ") as [string, ...string[]];
    const env = { ...process.env, NODE_OPTIONS: "", npm_config_userconfig: config };
    await promisify(execFile)(name, args, { cwd: folder, env, shell: process.platform === "win32" });
  };
  return { folder, binary: join(folder, "node_modules", published.here), npm };
}

test.serial("the binary's package is installed by the command that its absence recommends", async (t) => {
  t.timeout(600_000);
  const { folder, binary, npm } = await project();
  await npm("npm install lowrank --omit=optional");
  t.false(existsSync(binary));
  const message = nodeIn(folder, "app.mjs");
  const [, command = ""] = /Install it: (npm install --no-save \S+);/.exec(message) ?? [];
  await npm(command);
  t.is(nodeIn(folder, "app.mjs"), "loaded");

  // The alternative in the message.
  t.regex(message, /or remove node_modules and package-lock\.json, and npm install$/);
  for (const name of ["node_modules", "package-lock.json"])
    rmSync(join(folder, name), { recursive: true, force: true });
  await npm("npm install");
  t.is(nodeIn(folder, "app.mjs"), "loaded");
});

test.serial("a damaged binary is replaced as its message recommends", async (t) => {
  t.timeout(600_000);
  const { folder, binary, npm } = await project();
  await npm("npm install lowrank");
  t.is(nodeIn(folder, "app.mjs"), "loaded");
  for (const file of readdirSync(binary).filter((one) => one.endsWith(".node")))
    writeFileSync(join(binary, file), "this is no binary");
  const message = nodeIn(folder, "app.mjs");
  const [, place = "", command = ""] =
    /remove the folder (\S+) and install it again: (npm install --no-save \S+)$/.exec(message) ?? [];
  rmSync(join(folder, place), { recursive: true });
  await npm(command);
  t.is(nodeIn(folder, "app.mjs"), "loaded");
});
