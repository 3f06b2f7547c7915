// The crates' own tests on emulated processors and systems, and type checks for systems that cannot be run here.
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { STARTS_ITSELF, results } from "../engine-tests.mjs";
import { enter, mustEnter } from "./debian.mjs";
import { PROCESSORS, byProcessor, onProcessor, qemuRoot, wineRoot } from "./targets.mjs";

/** Whether this processor can run programs with another processor's CPUID. */
const CPU = "/proc/cpuinfo";
const FAULTS = existsSync(CPU) && /^flags\s*:.* cpuid_fault( |$)/m.test(readFileSync(CPU, "utf8"));

/** The names of crates in rows. */
const CRATES = {
  lowrank_cpu: "lowrank-cpu",
  lowrank_engine: "lowrank-engine",
  lowrank_linalg: "lowrank-linalg",
};

/** A test that opens the CPU device, whose error for an unknown level lists the available ones. */
const OPENS_CPU = "ops::reshape::tests::equals_the_reference";

/** The suites of each platform: `where`, and `row(folder, build, tell)`, which runs one. */
export const SUITES = {
  "tests-linux-arm64-gnu": {
    where: "Debian 12, qemu-user 7.2",
    row: (folder, build, tell) => {
      const root = qemuRoot(folder, tell);
      return tests(folder, build, "linux-arm64-gnu", "arm64", STARTS_ITSELF, (test, args, options) =>
        enter(root, ["qemu-aarch64", test, ...args], options),
      );
    },
  },
  ...Object.fromEntries(
    Object.entries(PROCESSORS).map(([name, processor]) => [
      `tests-linux-x64-gnu-${name}`,
      FAULTS ? held(name, processor) : emulated(name, processor),
    ]),
  ),
  "tests-win32-x64-msvc": {
    where: "built by mingw, Wine 8",
    row: (folder, build, tell) => {
      const { root, node, env } = wineRoot(folder, build, tell);
      return tests(folder, build, "win32-x64-msvc", "wine", [], (test, args, options) =>
        enter(root, ["wine", test, ...args], {
          ...options,
          binds: { ...options.binds, "/opt/node": node },
          env: { ...options.env, ...env },
        }),
      );
    },
  },
  ...Object.fromEntries(
    ["darwin-arm64", "darwin-x64", "win32-x64-msvc", "win32-arm64-msvc"].map((name) => [
      `types-${name}`,
      { where: "types alone", row: (folder, build) => types(folder, build, name) },
    ]),
  ),
};

/** On this processor, with the CPUID of a lesser one (processor.c). */
function held(name, { levels }) {
  return {
    where: `Debian 12, with the CPUID of a processor of ${levels}`,
    row(folder, build, tell) {
      const root = qemuRoot(folder, tell);
      const [source, library] = ["/src/scripts/platforms/processor.c", "/build/processor.so"];
      const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"];
      mustEnter(build.root, ["cc", ...flags, source, "-o", library], build.options);
      const before = ["env", `PROCESSOR=${name}`, `LD_PRELOAD=${library}`];
      const start = (test, args, options) => enter(root, [...before, test, ...args], options);
      return tests(folder, build, "linux-x64-gnu", name, [], start, levels);
    },
  };
}

/** In an emulator, if the processor does not allow that: about 200 times slower. */
function emulated(name, processor) {
  return {
    where: onProcessor(processor),
    row(folder, build, tell) {
      const root = qemuRoot(folder, tell);
      const start = (test, args, options) => enter(root, [...byProcessor(processor), test, ...args], options);
      return tests(folder, build, "linux-x64-gnu", name, STARTS_ITSELF, start, processor.levels);
    },
  };
}

/** Runs a command with its output in `log`; returns its status and seconds. */
function timed(log, start) {
  const file = openSync(log, "w");
  try {
    const begun = performance.now();
    const { status } = start(["ignore", file, file]);
    return { status, seconds: (performance.now() - begun) / 1000 };
  } finally {
    closeSync(file);
  }
}

/** Runs a command in the build root; throws with the end of its output if it fails. */
function building(folder, { root, options }, log, args) {
  const out = join(folder, `${log}.out`);
  const file = openSync(out, "w");
  const command = ["node", "scripts/platforms/suite.mjs", ...args];
  const { status, seconds } = timed(join(folder, `${log}.log`), ([, , errors]) => {
    const how = { ...options, stdio: ["ignore", file, errors], seconds: 7200 };
    return enter(root, command, how);
  });
  closeSync(file);
  if (status !== 0) throw new Error(`status ${status}, see ${join(folder, `${log}.log`)}`);
  return { printed: readFileSync(out, "utf8"), seconds };
}

/** The levels that a test binary finds, from its error for an unknown level. */
function found(log, start, test, options) {
  const env = { ...options.env, LOWRANK_ISA: "none" };
  timed(log, (stdio) => start(test, [OPENS_CPU], { ...options, env, cwd: "/src", stdio, seconds: 600 }));
  return /this processor has ([a-z0-9, ]+)/.exec(readFileSync(log, "utf8"))?.[1];
}

function tests(folder, build, platform, on, without, start, levels) {
  const log = `tests-${platform}-${on}`;
  const built = building(folder, build, log, ["tests", platform, ...Object.values(CRATES)]);
  const paths = JSON.parse(built.printed.trim().split("\n").at(-1));
  const row = { passed: 0, failed: 0, built: built.seconds, seconds: 0, without, wrong: [] };
  const { "/src": source, "/build": cargo } = build.options.binds;
  const options = { binds: { "/src": source, "/build": cargo }, env: { LOWRANK_NO_GPU: "1" } };
  if (levels !== undefined) {
    const seen = found(join(folder, `${log}-levels.log`), start, paths.lowrank_engine, options);
    if (seen !== levels) row.wrong.push(`the engine finds ${seen} and not ${levels}`);
  }
  for (const crate of Object.keys(CRATES)) {
    const told = join(folder, `${log}-${crate}.log`);
    const args = without.flatMap((name) => ["--skip", name]);
    const { status, seconds } = timed(told, (stdio) =>
      start(paths[crate], args, { ...options, cwd: "/src", stdio, seconds: 7200 }),
    );
    row.seconds += seconds;
    const { passed, failed, names } = results(readFileSync(told, "utf8"));
    row.passed += passed;
    row.failed += failed;
    row.wrong.push(...names.map((name) => `${crate}: ${name}`));
    if (status !== 0 && failed === 0) row.wrong.push(`${crate}: status ${status}, see ${told}`);
  }
  return row;
}

function types(folder, build, platform) {
  const { seconds } = building(folder, build, `types-${platform}`, ["types", platform]);
  return { built: seconds, without: [], wrong: [] };
}
