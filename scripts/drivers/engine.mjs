// Builds the engine's tests once and runs them on one driver after another.
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { execPath } from "node:process";
import { fileURLToPath } from "node:url";
import { avaCounts, verdict } from "../counts.mjs";
import { results } from "../engine-tests.mjs";

export const checkout = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Training tests on the GPU: one compares losses, norms and all gradients of the first step with PyTorch's; the others use
 * f16 products, which only some drivers support.
 */
const TRAINING = [
  "test/parity/llama.test.ts",
  "test/train/matmul-precision.test.ts",
  "--match=tied on gpu: ten steps*",
  "--match=*products in f16 on gpu*",
];

/** Builds the tests of the engine, or of another crate, and returns the program. */
export function built(crate = "lowrank-engine") {
  const args = ["test", "--release", "-p", crate, "--lib", "--no-run", "--message-format=json"];
  const { status, stdout, stderr } = spawnSync("cargo", args, {
    cwd: checkout,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (status !== 0) throw new Error(`cargo ${args.join(" ")}: ${status}\n${stderr.slice(-4000)}`);
  const messages = stdout.split("\n").filter((line) => line.startsWith("{"));
  const made = messages.map((line) => JSON.parse(line)).find(({ executable }) => executable);
  return made.executable;
}

/**
 * Runs the engine's tests and returns `{ passed, failed, told, forms, wrote }`: the failed tests' names, the number of
 * kernel variants launched by tests of whole families, and the output. `start` is the command prefix, `skip` are names of
 * tests. Without `cleanly`, the exit status is ignored.
 */
export function engineTests(program, env, log, { start = [], skip = [], cleanly = true } = {}) {
  const args = ["--show-output", ...skip.flatMap((name) => ["--skip", name])];
  const { status, wrote } = run([...start, program, ...args], env, log, join(checkout, "crates/engine"));
  const { passed, failed, names } = results(wrote);
  const well = !cleanly && names.length === 0;
  const forms = [...wrote.matchAll(/^(\d+) forms of \d+ kernels launched: all$/gm)];
  return {
    ...verdict({ passed, failed }, well ? 0 : status),
    told: names,
    forms: forms.reduce((sum, [, count]) => sum + Number(count), 0),
    wrote,
  };
}

/** Runs the training tests, with the same result. */
export function training(env, log) {
  const ava = join(checkout, "node_modules/ava/entrypoints/cli.mjs");
  const { status, wrote } = run([execPath, ava, ...TRAINING], env, log, checkout);
  const told = [...wrote.matchAll(/^\s*[✘×] (?:\[fail\]: )?(.+)$/gm)].map(([, name]) => name);
  return { ...verdict(avaCounts(wrote), status), told };
}

/** Runs a command with its output in a file; returns its status and output. */
function run([command, ...args], env, log, cwd) {
  const file = openSync(log, "w");
  const { status, error } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", file, file],
    timeout: 10_800_000,
    killSignal: "SIGKILL",
  });
  closeSync(file);
  if (error !== undefined) throw error;
  return { status: status ?? 1, wrote: readFileSync(log, "utf8") };
}

/** Returns the missing parts among the addon and its JavaScript, which training and the driver's name need. */
export function missing() {
  const native = join(checkout, "native");
  const there = existsSync(native) && readdirSync(native).some((name) => name.endsWith(".node"));
  return [
    ...(there ? [] : ["the addon is not built: npm run build:native"]),
    ...(existsSync(join(checkout, "dist/index.js")) ? [] : ["the library is not built: npm run build"]),
  ];
}

/** Returns the driver of the first GPU, as the engine reports it. */
export function driverOf(env) {
  const ask = `import("lowrank").then((m) => console.log(m.devices().find((d) => d.device !== "cpu")?.driver))`;
  const { stdout, stderr } = spawnSync(execPath, ["--input-type=module", "-e", ask], {
    cwd: checkout,
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  return stdout.trim() || stderr.trim().slice(-400);
}
