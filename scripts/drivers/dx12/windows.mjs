// `node scripts/drivers/dx12/windows.mjs fxc|dxc`, on Windows: runs the engine's tests on DX12, on WARP if there is no
// other GPU. DXC comes from the npm package `webgpu`, unpacked into ./package.
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { argv, env } from "node:process";
import { results } from "../../engine-tests.mjs";
import { built, checkout } from "../engine.mjs";
import { grouped } from "./modules.mjs";

const DXC = resolve("package/dist/win32-x64/dxcompiler.dll");
const LIMIT_MS = 3_600_000;

const [, , compiler] = argv;
if (compiler !== "fxc" && compiler !== "dxc") throw new Error("usage: windows.mjs fxc|dxc");
const program = built();
const environment = { ...env, LOWRANK_BACKEND: "dx12", ...(compiler === "dxc" ? { LOWRANK_DXC: DXC } : {}) };
const run = (args) =>
  spawnSync(program, args, {
    cwd: resolve(checkout, "crates/engine"),
    encoding: "utf8",
    env: environment,
    maxBuffer: 2 ** 28,
    timeout: LIMIT_MS,
  });

const names = [...run(["--list"]).stdout.matchAll(/^(\S+): test\r?$/gm)].map(([, name]) => name);
const groups = grouped(names);
if (groups.length === 0) throw new Error("the program lists no tests");
let passed = 0;
const failed = [];
for (const group of groups) {
  const { stdout, stderr, status } = run([group]);
  const found = results(stdout.replaceAll("\r", ""));
  passed += found.passed;
  if (status !== 0 || found.names.length > 0) {
    failed.push(`${group} ${found.names.join(", ")}`);
    console.log(stdout, stderr);
  }
  console.log(`${group} ${found.passed} passed, status ${status}`);
}
console.log(`${compiler}: ${passed} passed, ${failed.length} of ${groups.length} modules failed`);
if (failed.length > 0) process.exitCode = 1;
