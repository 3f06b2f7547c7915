/**
 * An app in an archive, packed by Electron's packager with the globs of the example, and loaded as Electron loads
 * it.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { createPackageWithOptions } from "@electron/asar";
import test from "ava";

import { temporary } from "../hashed.js";
import { installedProject } from "../packed.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const SUPPORT = new URL("asar-support.mjs", import.meta.url).href;

/**
 * Trains the embedded model, by the name that the app uses, for two steps; prints the result, or the error's code
 * and message.
 */
const APP = `
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { finetune, loadModel, LowrankError } from "lowrank";
import { connect, serve } from "lowrank/electron";

const models = join(dirname(createRequire(import.meta.url).resolve("lowrank/package.json")), "models");
const { port1, port2 } = new MessageChannel();
serve(port1);
const client = connect(port2);
try {
  const run = client.finetune({
    model: join(models, "default"),
    data: join(models, "default", "moby-dick.txt"),
    output: process.argv.at(-1),
    device: "cpu",
    maxLength: 32,
    steps: 2,
    gradientAccumulation: 1,
  });
  let start;
  for await (const event of run) if (event.type === "start") start = event;
  const { adapter, steps } = await run.result;
  const loaded = await loadModel(start.model, { device: "cpu" });
  console.log(JSON.stringify({ model: start.model, adapter, steps, parameters: [...loaded.parameters()].length }));
} catch (error) {
  console.log(JSON.stringify({ mine: error instanceof LowrankError, code: error.code, message: error.message }));
}
process.exit(0);
`;

let app: string | undefined;

/** Creates the app's folder before packing, with its dependencies as files instead of links. */
function appFolder(): string {
  if (app !== undefined) return app;
  const folder = join(temporary(), "app");
  mkdirSync(folder);
  cpSync(join(installedProject(), "node_modules"), join(folder, "node_modules"), {
    recursive: true,
    dereference: true,
  });
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ name: "app", version: "1.0.0", type: "module" }),
  );
  writeFileSync(join(folder, "app.js"), APP);
  return (app = folder);
}

interface Said {
  model: string;
  adapter: string;
  steps: number;
  parameters: number;
  mine: boolean;
  code: string;
  message: string;
}

interface Ran {
  archive: string;
  output: string;
  said: Said;
  /** The binaries that were loaded. */
  loaded: string[];
}

/** Packs the app and runs it from its archive, with only the unpacked files next to it. */
async function packedAndRun(unpack: string): Promise<Ran> {
  const folder = temporary();
  const archive = join(folder, "resources", "app.asar");
  mkdirSync(join(folder, "resources"));
  await createPackageWithOptions(appFolder(), archive, { unpack });
  const output = join(folder, "out");
  const dlopened = join(folder, "dlopened");
  writeFileSync(dlopened, "");
  const entry = pathToFileURL(join(archive, "app.js")).href;
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [`--import=${SUPPORT}`, "--input-type=module", "-e", `await import(${JSON.stringify(entry)})`, output],
    {
      cwd: folder,
      encoding: "utf8",
      env: { ...process.env, NODE_OPTIONS: "", LOWRANK_ASAR: archive, LOWRANK_DLOPENED: dlopened },
    },
  );
  if (status !== 0 || stdout === "") throw new Error(stderr);
  const loaded = readFileSync(dlopened, "utf8").split("\n").filter(Boolean);
  return { archive, output, said: JSON.parse(stdout) as Said, loaded };
}

/** Returns the globs that electron-builder unpacks, within the app. */
function globsOfBuilder(): string {
  const config = readFileSync(join(root, "examples", "electron", "electron-builder.json"), "utf8");
  return `{${(JSON.parse(config) as { asarUnpack: string[] }).asarUnpack.join(",")}}`;
}

/**
 * Returns the globs that Forge unpacks: its configuration's glob, and every binary, which
 * plugin-auto-unpack-natives adds.
 */
async function globsOfForge(): Promise<string> {
  const path = new URL("../../examples/electron/forge.config.cjs", import.meta.url).href;
  const { default: config } = (await import(path)) as {
    default: { packagerConfig: { asar: { unpack: string } }; plugins: { name: string }[] };
  };
  const natives = config.plugins.some(({ name }) => name === "@electron-forge/plugin-auto-unpack-natives");
  const { unpack } = config.packagerConfig.asar;
  return natives ? `{${unpack},**/*.node}` : unpack;
}

for (const [name, globs] of [
  ["electron-builder", globsOfBuilder],
  ["Forge", globsOfForge],
] as const)
  test.serial(
    `an app that ${name} packs like the example loads the engine and trains the embedded model`,
    async (t) => {
      t.timeout(120_000);
      const { archive, output, said, loaded } = await packedAndRun(await globs());
      t.is(said.message, undefined as never);
      t.is(said.steps, 2);
      t.is(said.adapter, output);
      t.true(existsSync(join(output, "adapter_model.safetensors")));
      t.true(said.model.startsWith(`${archive}/`), said.model);
      t.true(said.parameters > 0);
      t.is(loaded.length, 1, loaded.join());
      t.regex(
        loaded[0] as string,
        /\/app\.asar\.unpacked\/node_modules\/lowrank-[a-z0-9-]+\/lowrank\.[a-z0-9-]+\.node$/,
      );
      t.false(
        existsSync(join(`${archive}.unpacked`, "node_modules", "lowrank", "dist")),
        "the rest stays in the archive",
      );
    },
  );

test.serial("a model that was not unpacked is refused, and the error says what to do", async (t) => {
  t.timeout(120_000);
  const { archive, said, loaded } = await packedAndRun("**/*.node");
  t.is(loaded.length, 1);
  t.true(said.mine);
  t.is(said.code, "ERR_FILE_NOT_FOUND");
  t.true(said.message.startsWith(`${archive}/node_modules/lowrank/models/default`), said.message);
  t.regex(
    said.message,
    /is inside an archive, where the engine cannot read it; unpack it \(asarUnpack .*\), or keep models outside of the app$/,
  );
});

test.serial("a binary that was not unpacked is ERR_NATIVE_LOAD", async (t) => {
  t.timeout(120_000);
  const { said } = await packedAndRun("**/models/default/*");
  t.is(said.code, "ERR_NATIVE_LOAD");
  t.true(said.mine);
});
