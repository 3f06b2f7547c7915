// `npm run test:mpi [-- LAUNCHERS…]`: builds the addon of lowrank-mpi, installs this tree's packages into a folder, and
// trains the built-in model on the CPU on up to four ranks, with each launcher of this machine: mpirun.openmpi and
// mpirun.mpich, or mpirun. Names or paths select launchers. Prints a line of counts; the exit status is 1 if something
// failed, or if there is no launcher.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installMpi, installPackage } from "../install-package.mjs";
import { must } from "../platforms/command.mjs";
import { CHECKS, runAlone, writeRows } from "./checks.mjs";
import { installExample, listExampleChecks } from "./examples.mjs";
import { findLaunchers } from "./launchers.mjs";

const work = mkdtempSync(join(tmpdir(), "lowrank-mpi-"));
try {
  const launchers = findLaunchers(process.argv.slice(2), work);
  if (launchers.length === 0) throw new Error("no mpirun is here; install Open MPI or MPICH");
  const folder = installProject();
  const alone = await runAlone(folder);
  const counts = { passed: 0, failed: 0 };
  for (const [i, launcher] of launchers.entries()) {
    const place = { folder, launcher, alone, output: (name) => join(`runs-${i}`, name) };
    for (const [title, check] of Object.entries({ ...CHECKS, ...listExampleChecks(launcher) }))
      counts[(await runCheck(`${launcher.title}: ${title}`, () => check(place))) ? "passed" : "failed"] += 1;
  }
  console.log(`mpi: ${counts.passed} passed, ${counts.failed} failed`);
  if (counts.failed > 0) process.exitCode = 1;
} catch (error) {
  console.error(`lowrank: test:mpi: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** Installs the packages into a project with the data and the example; returns its folder. */
function installProject() {
  must("npm", ["run", "build:mpi"]);
  must("npm", ["run", "build"]);
  const folder = join(work, "project");
  mkdirSync(folder);
  installPackage(folder, work);
  installMpi(folder, work);
  mkdirSync(join(folder, "node_modules", ".bin"));
  symlinkSync(
    join("..", "lowrank", "dist", "cli", "main.js"),
    join(folder, "node_modules", ".bin", "lowrank"),
  );
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
  writeRows(folder);
  installExample(folder);
  return folder;
}

async function runCheck(title, check) {
  const started = performance.now();
  const time = () => `${((performance.now() - started) / 1000).toFixed(1)} s`;
  try {
    await check();
    console.log(`ok     ${title} (${time()})`);
    return true;
  } catch (error) {
    console.log(`FAILED ${title} (${time()})\n${String(error.stack).replaceAll(/^/gm, "       ")}`);
    return false;
  }
}
