// `npm run kernels`: writes docs/kernels.md, with operation counts of the kernels' inner loops from the engine's shaders.
// A test of the same example compares the page with the counts.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const checkout = fileURLToPath(new URL("../..", import.meta.url));
const args = ["run", "--release", "-q", "-p", "lowrank-engine", "--example", "forms", "--", "table"];
const { status, stdout, error } = spawnSync("cargo", args, {
  cwd: checkout,
  encoding: "utf8",
  maxBuffer: 2 ** 26,
  stdio: ["ignore", "pipe", "inherit"],
});
if (status === 0) {
  writeFileSync(`${checkout}docs/kernels.md`, stdout);
} else {
  console.error(`lowrank: the kernels were not counted: cargo ended with ${status ?? error?.message}`);
  process.exitCode = 1;
}
