/** The reports of the trial of the packages on other platforms. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { results } from "../../scripts/engine-tests.mjs";
import {
  type Losses,
  SHORT,
  type Seen,
  type System,
  TRIED,
  attempt,
} from "../../scripts/platforms/attempt.mjs";
import { missing } from "../../scripts/platforms/debian.mjs";
import { suitesTable } from "../../scripts/platforms/results.mjs";
import { type Row, failed, table } from "../../scripts/platforms/table.mjs";
import { temporary } from "../hashed.js";

const wrongs = (told: Partial<Record<string, string>> = {}): Seen["wrong"] =>
  Object.fromEntries(TRIED.map((name) => [name, told[name] ?? null]));

const WELL: Row = {
  platform: "linux-x64-musl",
  where: "musl",
  node: "24.19.0",
  seconds: 3.14,
  packed: 6_040_000,
  unpacked: 17_260_000,
  wrong: wrongs(),
};

/** Returns a platform whose successive runs have these losses, and whose trial writes `report`. */
function told(folder: string, runs: readonly Losses[], report: object | undefined): System {
  let count = 0;
  return {
    install: () => 0,
    lowrank: (_, log) => {
      const losses = runs[count++] ?? [];
      writeFileSync(
        log,
        losses.map(([step, loss]) => JSON.stringify({ type: "step", step, loss })).join("\n"),
      );
      return 0;
    },
    node: () => {
      if (report !== undefined) writeFileSync(join(folder, "report.json"), JSON.stringify(report));
      return report === undefined ? 7 : 0;
    },
  };
}

test("losses must be bit-identical to the expected, repeated and resumed ones", (t) => {
  const losses: Losses = [5.029156684875488, 4.730572700500488, 4.996392250061035].map((loss, i) => [
    i + 1,
    loss,
  ]);
  const other = losses.map(([step, loss]): [number, number] => [
    step,
    step === 3 ? loss * (1 + 2 ** -23) : loss,
  ]);
  const trial = (runs: readonly Losses[]): Seen["wrong"] => {
    const folder = join(temporary(), "trial");
    const report = {
      node: "v24.0.0",
      wrong: { save: null, overwrite: null, stop: null },
      losses: losses.slice(0, 1),
    };
    return attempt(folder, told(folder, runs, report), losses, { ...SHORT, steps: 3 }).wrong;
  };
  const rest = losses.slice(1);
  t.deepEqual(trial([losses, losses, rest]), wrongs());
  const differs =
    /^losses are not (those of Linux x64|the first run's|an unbroken run's): [\d.]+ at step 3, and 4\.99/;
  t.regex(trial([other, other, other.slice(1)]).train ?? "", differs);
  t.regex(trial([losses, other, rest]).overwrite ?? "", differs);
  t.regex(trial([losses, losses, other.slice(1)]).resume ?? "", differs);
  t.regex(
    trial([losses, losses, rest.slice(0, 1)]).resume ?? "",
    /: none at step none, and 4\.99\S+ at step 3$/,
  );
  t.regex(trial([losses, losses, losses]).resume ?? "", /^4 losses, and an unbroken run's are 3$/);
  t.is(trial([losses.slice(0, 2), losses, rest]).train, "the run reported 2 of 3 steps");
});

test("a process that ends before its report fails the missing trials", (t) => {
  const folder = join(temporary(), "trial");
  const losses: Losses = [[1, 5]];
  const { wrong } = attempt(folder, told(folder, [losses, losses], undefined), undefined, {
    ...SHORT,
    steps: 1,
  });
  for (const name of ["save", "overwrite", "stop"] as const)
    t.is(wrong[name], "status 7: nothing was written");
  t.false("resume" in wrong);
  t.is(wrong.train, null);
});

test("a package that cannot be installed is not tested further", (t) => {
  const folder = join(temporary(), "trial");
  const system = { install: () => 1, lowrank: () => t.fail(), node: () => t.fail() } as unknown as System;
  const seen = attempt(folder, system);
  t.deepEqual(seen.wrong, { install: "status 1: nothing was written" });
  t.true(failed({ platform: "this", packed: 0, unpacked: 0, ...seen }));
});

test("the table shows results, failures and trials that were not reached", (t) => {
  const rows: Row[] = [
    WELL,
    { ...WELL, platform: "win32-x64-msvc", where: "Wine", wrong: wrongs({ overwrite: "EPERM:\nrename" }) },
    { ...WELL, platform: "linux-arm64-gnu", wrong: { install: "status 1" }, node: undefined },
    { platform: "darwin-x64", unbuilt: "it is built on darwin", wrong: {} },
  ];
  t.deepEqual(table(rows).split("\n"), [
    "| Platform | Node | Builds | Package | Installs | Trains | Saves | Overwrites | Stops | Resumes |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    "| linux-x64-musl, musl | 24.19.0 | yes | 17.3 MB, 6.0 packed | 3.1 s | yes | yes | yes | yes | yes |",
    "| win32-x64-msvc, Wine | 24.19.0 | yes | 17.3 MB, 6.0 packed | 3.1 s | yes | yes | **no** | yes | yes |",
    "| linux-arm64-gnu, musl | – | yes | 17.3 MB, 6.0 packed | **no** | – | – | – | – | – |",
    "| darwin-x64 | – | **no** | – | – | – | – | – | – | – |",
    "",
    "- win32-x64-msvc, Wine, Node 24.19.0: overwrite: EPERM: rename",
    "- linux-arm64-gnu, musl: install: status 1",
    "- darwin-x64: is not built: it is built on darwin",
  ]);
  t.deepEqual(rows.map(failed), [false, true, true, true]);
});

test("every trial that fails or is not reached fails its row", (t) => {
  for (const name of TRIED) {
    t.true(failed({ ...WELL, wrong: wrongs({ [name]: "so" }) }), name);
    const { [name]: _, ...others } = WELL.wrong;
    t.true(failed({ ...WELL, wrong: others }), name);
  }
});

test("missing requirements of a trial are reported, each with its remedy", (t) => {
  const told = missing([temporary()], () => 1000).join("\n");
  t.regex(told, /run it as root/);
  t.regex(told, /debootstrap is not here: apt-get install debootstrap/);
  t.regex(told, /unshare is not here: apt-get install util-linux/);
});

test("the results of a test binary are counted, and one that ends early has passed nothing", (t) => {
  const well =
    "test a::b ... ok\ntest a::c ... FAILED\n\ntest result: FAILED. 304 passed; 2 failed; 0 ignored;";
  t.deepEqual(results(well), { passed: 304, failed: 2, names: ["a::c"] });
  t.deepEqual(results("test a::b ... ok\n"), { passed: 0, failed: 0, names: ["ended early"] });
  const started = "test result: ok. 1 passed; 0 failed; 0 ignored;\n\ntest a::starts_itself ... ok\n";
  t.deepEqual(results(`${started}\n${well}`), { passed: 304, failed: 2, names: ["a::c"] });
  t.deepEqual(results(started), { passed: 0, failed: 0, names: ["ended early"] });
});

test("the table of suites shows failures, and skipped tests", (t) => {
  const row = { where: "qemu", passed: 305, failed: 0, built: 540, seconds: 300, without: ["a_test"] };
  const rows = [
    { name: "tests-a", ...row, wrong: [] },
    { name: "types-b", where: "types alone", built: 66, without: [], wrong: [] },
    { name: "tests-c", where: "Wine", wrong: ["status 1"] },
  ];
  t.deepEqual(suitesTable(rows).split("\n").slice(2), [
    "| tests-a | qemu | yes | 305 of 305, without a_test | 9.0 min | 5.0 min |",
    "| types-b | types alone | yes | – | 1.1 min | – |",
    "| tests-c | Wine | **no** | – | – | – |",
    "",
    "- tests-c: status 1",
  ]);
});
