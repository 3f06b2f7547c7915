// `npm run test:miri [-- PARTS…]`: runs the small tests of `lowrank-cpu` and of the engine, with the baseline of the native
// kernels, under Miri, which detects undefined behaviour of memory and threads. A test is small if it takes less than half
// a millisecond when compiled, since Miri is about ten thousand times slower. Parts of names select tests. Ends with the
// line `miri: N passed, N failed`. Needs nightly Rust: rustup toolchain install nightly --component miri,rust-src
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { argv, env } from "node:process";
import { cargoCounts, verdict } from "./counts.mjs";
import { built, checkout } from "./drivers/engine.mjs";

const CRATES = ["lowrank-cpu", "lowrank-engine"];

/** The time limit of a small test in seconds. */
const SMALL = 0.0005;

/** Features that Miri does not support: mapped files, subprocesses, shared libraries, assembly. */
const CANNOT = [
  "format::gguf::tests::lists",
  "format::gguf::tests::values",
  "format::safetensors::tests::values_are_read_in_place",
  "quant::tests::unpacked_blocks_have_the_bits",
  "quant::tests::every_instruction_set",
  "quantised_weights_have_the_bits",
  "simd::amx::",
  "two_processes_write_at_once",
  "a_pipe_in_place_of_the_file",
  "staged_file::",
  "device::gpu::",
  "device::tests::a_gpu_without_f16_conversion",
  "device::tests::meta_gpu_opens_no_device",
  "device::cpu::tests::the_smallest_sufficient_mapping",
];

/** Tests that take minutes under Miri: whole kernels over many sizes, and loops over many numbers. */
const LONG = [
  "attention::",
  "coded::",
  "rounded::",
  "every_variant::",
  "every_listed_",
  "any_range_of_a_matrix",
  "every_f16",
];

const parts = argv.slice(2);
const has = (names) => (test) => names.some((name) => test.includes(name));

if (spawnSync("cargo", ["+nightly", "miri", "--version"], { encoding: "utf8" }).status !== 0) {
  console.error("lowrank: Miri is not here: rustup toolchain install nightly --component miri,rust-src");
  process.exit(2);
}
const level = { LOWRANK_ISA: "baseline", LOWRANK_NO_GPU: "1" };

/** Returns the names of a crate's small tests that Miri supports, among those that the arguments select. */
function choose(crate) {
  const timed = spawnSync(built(crate), ["-Zunstable-options", "--report-time", "--test-threads=1"], {
    cwd: checkout,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    env: { ...env, ...level, RUSTC_BOOTSTRAP: "1" },
  });
  if (timed.status !== 0) {
    console.error(`lowrank: the compiled tests of ${crate} fail:\n${timed.stdout}`);
    process.exit(1);
  }
  const reports = [...timed.stdout.matchAll(/^test (\S+) \.\.\. ok <([\d.]+)s>$/gm)];
  const small = reports.filter(([, , seconds]) => Number(seconds) < SMALL).map(([, test]) => test);
  const chosen = small.filter(
    (test) => !has([...CANNOT, ...LONG])(test) && (parts.length === 0 || has(parts)(test)),
  );
  console.error(
    `lowrank: ${crate}: ${reports.length} tests, ${small.length} small, ${chosen.length} by Miri`,
  );
  return chosen;
}

/** Runs tests of a crate under Miri; resolves to the numbers that passed and failed. */
async function runByMiri(crate, tests) {
  const args = ["+nightly", "miri", "test", "-p", crate, "--lib", "--", "--exact", "--test-threads=1"];
  const miri = spawn("cargo", [...args, ...tests], {
    cwd: checkout,
    stdio: ["ignore", "pipe", "inherit"],
    // Without isolation, tests can query the system's memory and the processor's name.
    env: { ...env, ...level, MIRIFLAGS: `${env.MIRIFLAGS ?? ""} -Zmiri-disable-isolation` },
  });
  let wrote = "";
  miri.stdout.setEncoding("utf8").on("data", (text) => {
    wrote += text;
    process.stdout.write(text);
  });
  const [status] = await once(miri, "close");
  return verdict(cargoCounts(wrote), status);
}

const chosen = CRATES.map((crate) => ({ crate, tests: choose(crate) })).filter(
  ({ tests }) => tests.length > 0,
);
if (chosen.length === 0) {
  console.error("lowrank: no test is left");
  process.exit(1);
}
const sum = { passed: 0, failed: 0 };
for (const { crate, tests } of chosen) {
  const { passed, failed } = await runByMiri(crate, tests);
  sum.passed += passed;
  sum.failed += failed;
}
console.log(`miri: ${sum.passed} passed, ${sum.failed} failed`);
process.exitCode = sum.failed > 0 ? 1 : 0;
