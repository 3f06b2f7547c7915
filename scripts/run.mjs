// `npm start`, `npm test` and `npm run bench` on a fresh clone: checks requirements, installs, builds and runs.
// This file has no dependencies, since it runs before anything is installed.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { avaCounts, cargoCounts, verdict } from "./counts.mjs";
import { preflight } from "./preflight.mjs";

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

async function hasGpu() {
  if (process.env.LOWRANK_NO_GPU) return false;
  const ask = `import("lowrank").then((m) => console.log(JSON.stringify(m.devices().map((d) => d.device))))`;
  const { status, output } = await node(["--input-type=module", "-e", ask], { capture: true, quiet: true });
  return status === 0 && /"gpu/.test(output);
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

async function test(args) {
  await prepare();
  const gpu = await hasGpu();
  const env = gpu ? {} : { LOWRANK_NO_GPU: "1" };
  // The addon's build names its target; naming it here too makes both share one build of the dependencies.
  const cargo = await run("cargo", ["test", "--release", "--workspace", "--target", hostTarget()], {
    capture: true,
    env,
  });
  const ava = await node(["node_modules/ava/entrypoints/cli.mjs", ...args], { capture: true, env });
  const cargoResult = verdict(cargoCounts(cargo.output), cargo.status);
  const avaResult = verdict(avaCounts(ava.output), ava.status);
  if (!gpu) {
    const why = process.env.LOWRANK_NO_GPU ? "LOWRANK_NO_GPU is set" : "no GPU adapter was found";
    console.log(`not run: what tests the gpu device (operations, layers, parity), since ${why}.`);
    console.log(
      "To run it, install a Vulkan driver; without a GPU lavapipe serves (Debian: mesa-vulkan-drivers).",
    );
  }
  console.log(`cargo: ${cargoResult.passed} passed, ${cargoResult.failed} failed`);
  console.log(`ava: ${avaResult.passed} passed, ${avaResult.failed} failed`);
  const missing = !gpu && process.env.LOWRANK_REQUIRE_GPU;
  process.exitCode = cargoResult.failed + avaResult.failed > 0 || missing ? 1 : 0;
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

const tasks = { start, test, bench };
const [name, ...rest] = process.argv.slice(2);
const task = tasks[name];
if (task === undefined) {
  console.error(`lowrank: usage: node scripts/run.mjs ${Object.keys(tasks).join("|")} [ARGUMENTS]`);
  process.exit(2);
}
await task(rest);
