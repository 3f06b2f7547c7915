/** Electron's V8 does not allow external buffers, which are outside its sandbox. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { temporary } from "../hashed.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const here = fileURLToPath(new URL(".", import.meta.url));

/** Tensors read and written, files mapped and saved, events, runs that resume. */
const SUITES = ["test/models/mapped.test.ts", "test/train/resume.test.ts", "test/tensor/arguments.test.ts"];

interface Ended {
  status: number | null;
  output: string;
}

function node(args: string[], env: Record<string, string>): Ended {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: "", ...env },
  });
  return { status, output: stdout + stderr };
}

/** Compiles a C file of this folder as a library. */
function compiled(source: string, folder: string, name: string): string {
  const out = join(folder, name);
  execFileSync("cc", ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", out, join(here, source), "-ldl"]);
  return out;
}

// The shim relies on Linux's symbol lookup; other systems run the same code of the binding.
if (process.platform === "linux") {
  test("the suite's tests pass with external buffers refused, as in Electron", (t) => {
    t.timeout(300_000);
    const folder = temporary();
    const refusals = join(folder, "refusals");
    mkdirSync(refusals);
    const shim = {
      LD_PRELOAD: compiled("refuse-external.c", folder, "refuse.so"),
      LOWRANK_REFUSALS: refusals,
    };
    const plant = `console.log(require(${JSON.stringify(compiled("plant-external.c", folder, "plant.node"))}))`;
    t.is(node(["-e", plant], {}).output, "0\n", "external buffers are Node's default");
    t.is(node(["-e", plant], shim).output, "22\n", "the shim refuses them");

    for (const file of readdirSync(refusals)) writeFileSync(join(refusals, file), "[0, 0]");
    const ava = join(root, "node_modules", "ava", "entrypoints", "cli.mjs");
    const { status, output } = node([ava, ...SUITES], shim);
    t.is(status, 0, output);
    const counts = readdirSync(refusals).map(
      (file) => JSON.parse(readFileSync(join(refusals, file), "utf8")) as [number, number],
    );
    t.log(`${counts.reduce((sum, [, called]) => sum + called, 0)} refused`);
    // Each process that loads the binding looks up both functions, from the shim too.
    t.true(counts.filter(([lookedUp]) => lookedUp > 0).length >= SUITES.length, JSON.stringify(counts));
  });
}
