// `npm run test:clients [-- PROGRAMS…]`: installs this tree's package and the clients that package.json and
// requirements.txt pin, starts `lowrank serve` with the built-in model, and runs each client's own code, or the named
// programs of this folder. Prints a table of the calls' outcomes; the exit status is 1 if one failed. Needs Python 3.10
// or newer with venv, and a network for the clients.
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { installPackage } from "../install-package.mjs";
import { startJob } from "../job.mjs";
import { must } from "../platforms/command.mjs";
import { askPlainly, startServer } from "./server.mjs";
import { formatTable } from "./table.mjs";

const PROGRAMS = [
  "http-calls.mjs",
  "openai-calls.mjs",
  "ai-sdk-calls.mjs",
  "openai_calls.py",
  "langchain_calls.py",
];

const work = mkdtempSync(join(tmpdir(), "lowrank-clients-"));
try {
  const given = process.argv.slice(2);
  for (const name of given)
    if (!existsSync(new URL(name, import.meta.url)))
      throw new Error(`there is no ${name} in scripts/clients; the programs are ${PROGRAMS.join(", ")}`);
  const rows = await runPrograms(installProject(), given.length > 0 ? given : PROGRAMS);
  console.log(formatTable(rows));
  const failed = rows.filter(({ passed }) => !passed).length;
  console.log(`clients: ${rows.length - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
} catch (error) {
  console.error(`lowrank: test:clients: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** Installs the clients and the package into a copy of this folder; returns its path. */
function installProject() {
  must("npm", ["run", "build"]);
  const folder = join(work, "project");
  cpSync(fileURLToPath(new URL(".", import.meta.url)), folder, { recursive: true });
  must("npm", ["ci", "--no-audit", "--no-fund"], { cwd: folder });
  must("python3", ["-m", "venv", join(folder, "python")]);
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
  must(join(folder, "python", "bin", "python"), pip, { cwd: folder });
  installPackage(folder, work);
  return folder;
}

/** Runs the programs against one server; returns a row for each call, and for each program that failed. */
async function runPrograms(folder, programs) {
  const server = await startServer(folder);
  const rows = [];
  try {
    const given = JSON.stringify(await askPlainly(server));
    for (const program of programs) rows.push(...(await runProgram(folder, program, given)));
  } finally {
    rows.push(await server.stop());
  }
  return rows;
}

async function runProgram(folder, program, given) {
  const command = program.endsWith(".py") ? join(folder, "python", "bin", "python") : process.execPath;
  const job = await startJob(command, [program], { folder, env: { LOWRANK_CLIENT: given } }).ended;
  if (job.status === 0 && job.events.length > 0) return job.events;
  const outcome = `exit status ${job.status}: ${job.stderr.trim().slice(-500)}`;
  return [...job.events, { client: program, call: "the whole program", passed: false, outcome }];
}
