// The peers' own Python environment: made once, outside of the repository.
//
//   node benches/races/peers.mjs      makes it, and prints its interpreter
//
// LOWRANK_PEER_PYTHON names an interpreter that has requirements.txt already; LOWRANK_RACE_FOLDER another folder.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { argv, env, platform } from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

const requirements = fileURLToPath(new URL("requirements.txt", import.meta.url));

export function raceFolder() {
  const cache = env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  return env.LOWRANK_RACE_FOLDER ?? join(cache, "lowrank-races");
}

export function peerPython() {
  if (env.LOWRANK_PEER_PYTHON) return env.LOWRANK_PEER_PYTHON;
  const venv = join(raceFolder(), "venv");
  const python = platform === "win32" ? join(venv, "Scripts", "python.exe") : join(venv, "bin", "python");
  const stamp = join(venv, "requirements.txt");
  const wanted = readFileSync(requirements, "utf8");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return python;
  console.error(`making the peers' Python environment in ${venv}; it takes some minutes, and some GB`);
  mkdirSync(raceFolder(), { recursive: true });
  must(platform === "win32" ? "python" : "python3", ["-m", "venv", venv]);
  must(python, ["-m", "pip", "install", "--quiet", "-r", requirements]);
  writeFileSync(stamp, wanted);
  return python;
}

function must(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: ["ignore", 2, 2] });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed`);
}

if (argv[1] && import.meta.url === pathToFileURL(argv[1]).href) console.log(peerPython());
