import test from "ava";
import { avaCounts, cargoCounts, verdict } from "../../scripts/counts.mjs";
import { compareVersions, satisfies } from "../../scripts/preflight.mjs";

test("cargo: the results of all binaries are added up", (t) => {
  const output = [
    "running 3 tests",
    "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    "test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
  ].join("\n");
  t.deepEqual(cargoCounts(output), { passed: 7, failed: 1 });
});

test("ava: uncaught exceptions and failed hooks count as failures", (t) => {
  t.deepEqual(avaCounts("  ─\n\n  12 tests passed\n"), { passed: 12, failed: 0 });
  const output = "  1 test failed\n  1 hook failed\n  2 uncaught exceptions\n\n  1 test passed";
  t.deepEqual(avaCounts(output), { passed: 1, failed: 4 });
});

test("ava: its summary omits the passed tests if some failed", (t) => {
  const output =
    "  ✔ a › one\n    ℹ a log\n  ✔ a › two (1.2s)\n  ✘ [fail]: a › three\n  ─\n\n  a › three\n\n  1 test failed\n";
  t.deepEqual(avaCounts(output), { passed: 2, failed: 1 });
});

test("a suite that ran nothing, or ended badly without a failure, has failed", (t) => {
  t.is(verdict({ passed: 0, failed: 0 }, 0).failed, 1);
  t.is(verdict({ passed: 5, failed: 0 }, 101).failed, 1);
  t.is(verdict({ passed: 5, failed: 0 }, 0).failed, 0);
  t.is(verdict({ passed: 5, failed: 2 }, 1).failed, 2);
});

test("versions are compared as numbers", (t) => {
  t.is(compareVersions("1.90", "1.90.0"), 0);
  t.is(compareVersions("1.9.1", "1.90"), -1);
  t.is(compareVersions("1.95.0-nightly", "1.90"), 1);
});

test("Node's range", (t) => {
  const range = "^20.19.0 || >=22.14.0";
  for (const version of ["20.19.0", "20.20.2", "22.14.0", "24.1.0"])
    t.true(satisfies(version, range), version);
  for (const version of ["18.20.0", "20.18.9", "21.5.0", "22.13.1"])
    t.false(satisfies(version, range), version);
});
