// `npm start`, `npm test` and `npm run bench` on a fresh clone: checks requirements, installs, builds and runs.
// This file has no dependencies, since it runs before anything is installed.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { avaCounts, cargoCounts, verdict } from "./counts.mjs";
import { preflight } from "./preflight.mjs";
import { EXHAUSTIVE, GPU_SAMPLE, QUICK } from "./test-selection.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const windows = process.platform === "win32";

/** Runs a command with its output shown; resolves to its status and, with `capture`, its standard output. */
function run(command, args, { capture = false, quiet = false, env = {} } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      shell: windows && !command.endsWith(".exe"),
      stdio: ["inherit", capture ? "pipe" : "inherit", quiet ? "ignore" : "inherit"],
    });
    let output = "";
    child.stdout?.setEncoding("utf8").on("data", (text) => {
      output += text;
      if (!quiet) process.stdout.write(text);
    });
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status: signal === null ? status : 1, output }));
  });
}

const node = (args, options) => run(process.execPath, args, options);

function npm(args) {
  const script = process.env.npm_execpath;
  return script?.endsWith(".js") ? node([script, ...args]) : run("npm", args);
}

async function must(step) {
  const { status } = await step;
  if (status !== 0) process.exit(status ?? 1);
}

function installedIsCurrent() {
  const stamp = join(root, "node_modules", ".package-lock.json");
  return existsSync(stamp) && statSync(stamp).mtimeMs >= statSync(join(root, "package-lock.json")).mtimeMs;
}

async function prepare() {
  preflight();
  if (!installedIsCurrent()) await must(npm(["ci"]));
  await must(npm(["run", "build:native"]));
  await must(npm(["run", "build"]));
}

/** Returns Rust's default target triple. */
function hostTarget() {
  const { stdout } = spawnSync("rustc", ["-vV"], { encoding: "utf8", cwd: root });
  return /^host: (.+)$/m.exec(stdout)[1];
}

/** Returns the kind of GPU that tests use: "hardware", "software" (such as lavapipe), or undefined. */
async function findGpu() {
  if (process.env.LOWRANK_NO_GPU) return undefined;
  const ask = `import("lowrank").then((m) => console.log(JSON.stringify(m.devices())))`;
  const { status, output } = await node(["--input-type=module", "-e", ask], { capture: true, quiet: true });
  const gpus = status === 0 ? JSON.parse(output).filter(({ device }) => device.startsWith("gpu")) : [];
  if (gpus.length === 0) return undefined;
  return gpus.some(({ kind }) => kind !== "software") ? "hardware" : "software";
}

/** Returns the first free name of lowrank-out, lowrank-out-2, …, so that a second start does not touch the first run. */
function freeOutput() {
  for (let n = 1; ; n++) {
    const name = n === 1 ? "lowrank-out" : `lowrank-out-${n}`;
    if (!existsSync(join(root, name))) return name;
  }
}

async function start(args) {
  await prepare();
  const output = args.includes("--output") ? [] : ["--output", freeOutput()];
  const { status } = await node(["dist/cli/main.js", "finetune", ...output, ...args]);
  process.exit(status ?? 1);
}

/** Runs `cargo test` with arguments for the test programs; resolves to its status and output. */
function cargoTest(env, only = []) {
  // The addon's build names its target; naming it here too makes both share one build of the dependencies.
  const which = ["--release", "--workspace", "--target", hostTarget()];
  const some = only.length > 0 ? ["--lib", "--", ...only] : [];
  return run("cargo", ["test", ...which, ...some], { capture: true, env });
}

const ava = (args, env) => node(["node_modules/ava/entrypoints/cli.mjs", ...args], { capture: true, env });

const NO_GPU = { LOWRANK_NO_GPU: "1" };

/**
 * Runs the tests. Without patterns and `--exhaustive`, a software GPU runs a sample of its tests, and files that take long
 * are left out.
 */
async function test(args) {
  const patterns = args.filter((arg) => arg !== "--exhaustive");
  const everything = patterns.length > 0 || args.includes("--exhaustive");
  await prepare();
  const gpu = await findGpu();
  const samples = gpu === "software" && !everything;
  const env = gpu === undefined || samples ? NO_GPU : {};
  const files = everything ? patterns : ["test/**/*.test.ts", ...EXHAUSTIVE.map((name) => `!${name}`)];
  const cargo = [await cargoTest(env)];
  if (samples) cargo.push(await cargoTest({}, GPU_SAMPLE.cargo));
  const suites = [await ava(files, env)];
  if (samples) suites.push(await ava(GPU_SAMPLE.ava, {}));
  const cargoResult = sumVerdicts(cargo, cargoCounts);
  const avaResult = sumVerdicts(suites, avaCounts);
  if (gpu === undefined) {
    const why = process.env.LOWRANK_NO_GPU ? "LOWRANK_NO_GPU is set" : "no GPU adapter was found";
    console.log(`not run: what tests the gpu device (operations, layers, parity), since ${why}.`);
    console.log(
      "To run it, install a Vulkan driver; without a GPU lavapipe serves (Debian: mesa-vulkan-drivers).",
    );
  }
  if (!everything) {
    const most = samples ? "most tests of the gpu device, since the GPU is emulated, and " : "";
    console.log(
      `not run: ${most}${EXHAUSTIVE.length} files of long tests; npm test -- --exhaustive runs them.`,
    );
  }
  console.log(`cargo: ${cargoResult.passed} passed, ${cargoResult.failed} failed`);
  console.log(`ava: ${avaResult.passed} passed, ${avaResult.failed} failed`);
  const missing = gpu === undefined && process.env.LOWRANK_REQUIRE_GPU;
  process.exitCode = cargoResult.failed + avaResult.failed > 0 || missing ? 1 : 0;
}

/** Returns the sum of the counts of runs; a run that ended badly without naming a failure counts as one. */
function sumVerdicts(runs, countsOf) {
  const counts = runs.map(({ output, status }) => verdict(countsOf(output), status));
  return counts.reduce((a, b) => ({ passed: a.passed + b.passed, failed: a.failed + b.failed }));
}

/** Checks types, lint, the engine and the library on the CPU; needs the builds, and starts no other program. */
async function quick() {
  const checks = ["typecheck", "lint"].map((name) => npm(["run", name]));
  const cargo = await run("cargo", ["test", "--release", "--workspace", "--lib", "--target", hostTarget()], {
    capture: true,
    env: NO_GPU,
  });
  const statuses = (await Promise.all(checks)).map(({ status }) => status);
  const avaResult = sumVerdicts([await ava(QUICK, NO_GPU)], avaCounts);
  const cargoResult = sumVerdicts([cargo], cargoCounts);
  console.log(`cargo: ${cargoResult.passed} passed, ${cargoResult.failed} failed`);
  console.log(`ava: ${avaResult.passed} passed, ${avaResult.failed} failed`);
  const failed = cargoResult.failed + avaResult.failed + statuses.filter((status) => status !== 0).length;
  process.exitCode = failed > 0 ? 1 : 0;
}

/** Runs the races against the peers, or the named ones; with `--kernels` the engine's kernel benchmarks in criterion. */
async function bench(args) {
  await prepare();
  if (args[0] === "--kernels") {
    await must(run("cargo", ["bench", "--workspace", "--target", hostTarget(), ...args.slice(1)]));
    return;
  }
  await must(node(["--import=tsx", "benches/races/main.ts", ...args]));
  if (args.some((arg) => /^[a-z]/.test(arg))) return;
  await must(node(["--import=tsx", "benches/races/long.ts"]));
  await must(node(["--import=tsx", "benches/endurance.mjs"]));
}

const tasks = { start, test, quick, bench };
const [name, ...rest] = process.argv.slice(2);
const task = tasks[name];
if (task === undefined) {
  console.error(`lowrank: usage: node scripts/run.mjs ${Object.keys(tasks).join("|")} [ARGUMENTS]`);
  process.exit(2);
}
await task(rest);
