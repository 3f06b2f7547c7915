// Runs the engine's tests on DX12 under Wine: with FXC on Wine's d3d12 (shader model 5.1), and with DXC on vkd3d-proton
// (6.0 and later), both on lavapipe. Each module of tests runs in a separate process with measured memory, since test
// devices stay open until their process ends.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { results } from "../../engine-tests.mjs";
import { checkout } from "../engine.mjs";
import { grouped } from "./modules.mjs";
import { inside, proton, runWindows, wine } from "./wine.mjs";

const TARGET = "x86_64-pc-windows-gnu";
const LINKER = "x86_64-w64-mingw32-gcc-posix";
/** The memory limit of one process in bytes; more is a failure. */
const MEMORY = 4e9;
/** Time limit of one module in seconds; a module compiles up to about a thousand shaders. */
const LIMIT = 3600;

/** Setups: files next to the program, replaced Wine libraries, and the environment. */
const SETUPS = {
  "dx12-fxc": {
    files: ({ windows }) => [join(windows, "d3dcompiler_47.dll")],
    overrides: "d3dcompiler_47=n",
    env: () => ({}),
  },
  "dx12-dxc": {
    files: (place, tell) => {
      const made = proton(place, tell);
      return ["d3d12.dll", "d3d12core.dll"].map((name) => join(made, name));
    },
    overrides: "d3d12,d3d12core=n",
    env: (place) => ({
      LOWRANK_DXC: `Z:${inside(place, join(place.windows, "dxcompiler.dll")).replaceAll("/", "\\")}`,
    }),
  },
};

export const NAMES = Object.keys(SETUPS);

/** Builds the engine's tests for Windows and returns the program. */
export function builtForWindows() {
  const args = ["test", "--release", "-p", "lowrank-engine", "--lib", "--no-run", "--message-format=json"];
  const { status, stdout, stderr } = spawnSync("cargo", [...args, "--target", TARGET], {
    cwd: checkout,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    env: { ...process.env, CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER: LINKER },
  });
  const needs = `rustup target add ${TARGET}; apt-get install gcc-mingw-w64-x86-64-posix`;
  if (status !== 0)
    throw new Error(`the tests were not built for Windows (${needs}):\n${stderr.slice(-3000)}`);
  const messages = stdout.split("\n").filter((line) => line.startsWith("{"));
  return messages.map((line) => JSON.parse(line)).find(({ executable }) => executable).executable;
}

/** Runs the tests module by module; returns `{ by, seen, wrong }`. */
export function onDx12(name, folder, program, log, tell) {
  const setup = SETUPS[name];
  const place = wine(folder, tell);
  const run = join(folder, name);
  rmSync(run, { recursive: true, force: true });
  mkdirSync(run, { recursive: true });
  for (const file of setup.files(place, tell)) copyFileSync(file, join(run, file.split("/").at(-1)));
  copyFileSync(program, join(run, "tests.exe"));
  writeFileSync(join(run, "measured.sh"), MEASURED);
  const env = { LOWRANK_BACKEND: "dx12", WINEDLLOVERRIDES: setup.overrides, ...setup.env(place) };
  const options = { env, cwd: inside(place, run), seconds: LIMIT };
  const listed = runWindows(place, ["tests.exe", "--list"], options).stdout;
  const names = [...listed.matchAll(/^(\S+): test\r?$/gm)].map(([, test]) => test);
  const total = { passed: 0, peak: 0, wrong: [], by: undefined };
  let wrote = "";
  for (const group of grouped(names)) {
    const ran = runMeasured(place, [group, "--show-output"], run, options);
    wrote += `== ${group}\n${ran.wrote}`;
    const found = results(ran.wrote);
    tell(
      `${name} ${group} ${found.passed} passed, ${found.failed} failed, ${(ran.peak / 1e9).toFixed(1)} GB`,
    );
    total.passed += found.passed;
    total.peak = Math.max(total.peak, ran.peak);
    if (found.names.length > 0) total.wrong.push(`${group} ${found.names.join(", ")}`);
    if (ran.peak === 0) total.wrong.push(`${group} the memory of its process was not measured`);
    if (ran.peak > MEMORY) total.wrong.push(`${group} took ${(ran.peak / 1e9).toFixed(1)} GB`);
    writeFileSync(log, wrote);
  }
  if (names.length === 0) total.wrong.push(`no tests were listed: ${listed.slice(0, 400)}`);
  const by = name === "dx12-fxc" ? "FXC on Wine's d3d12" : "DXC on vkd3d-proton";
  return {
    by,
    seen: `${total.passed} tests of the engine, ${(total.peak / 1e9).toFixed(1)} GB at most`,
    wrong: total.wrong,
  };
}

/**
 * Runs the test program in Wine; its output and peak resident memory go to a file, which exists while it runs. The
 * process is found by its arguments, because its name is its main thread's, which Rust names `main`.
 *
 * Descriptor sets are left out: for each bind group layout of each device, vkd3d-proton allocates two, and lavapipe
 * gives each the largest size that its layout allows, a million descriptors of 256 bytes.
 */
const MEASURED = `wine tests.exe "$@" > output 2>&1 & pid=$!
peak=0
while kill -0 $pid 2>/dev/null; do
  for process in /proc/[0-9]*; do
    if [ "$(head -zn 1 $process/cmdline 2>/dev/null | tr -d '\\0')" = tests.exe ]; then
      now=$(awk '/^Rss:/ && ($2 < 249990 || $2 > 250020) { sum += $2 } END { print sum + 0 }' $process/smaps 2>/dev/null)
      if [ "\${now:-0}" -gt "$peak" ]; then peak=$now; fi
    fi
  done
  sleep 0.5
done
wait $pid; status=$?
echo "peak $peak kB" >> output
exit $status
`;

/** Runs the tests of one module. If they exceed the time limit, the text says so after the lines of those that ended. */
function runMeasured(place, args, run, options) {
  const output = join(run, "output");
  rmSync(output, { force: true });
  let cut = "";
  try {
    runWindows(place, args, { ...options, through: ["sh", "measured.sh"] });
  } catch (error) {
    cut = `${error.message}\n`;
  }
  const wrote = existsSync(output) ? readFileSync(output, "utf8").replaceAll("\r", "") : "";
  const peak = Number(/^peak (\d+) kB$/m.exec(wrote)?.[1] ?? 0) * 1024;
  return { wrote: wrote + cut, peak };
}
