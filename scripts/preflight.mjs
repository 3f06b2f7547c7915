// Checks the requirements of a build from a clone: Node and Rust, in the versions of package.json and Cargo.toml.
// This file has no dependencies, since it runs before anything is installed.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Compares dotted version numbers and ignores suffixes; returns -1, 0 or 1. */
export function compareVersions(a, b) {
  const parts = (version) => (/\d+(\.\d+)*/.exec(version)?.[0] ?? "0").split(".").map(Number);
  const [x, y] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    const difference = (x[i] ?? 0) - (y[i] ?? 0);
    if (difference !== 0) return Math.sign(difference);
  }
  return 0;
}

/** Whether `version` is in a range such as `^20.19.0 || >=22.14.0`; supports only the two forms in package.json. */
export function satisfies(version, range) {
  return range.split("||").some((part) => {
    const [, operator, wanted] = /^(\^|>=)(\d+\.\d+\.\d+)$/.exec(part.trim()) ?? [];
    if (wanted === undefined) throw new Error(`engines: cannot read ${part.trim()}`);
    const sameMajor = Number.parseInt(version, 10) === Number.parseInt(wanted, 10);
    return compareVersions(version, wanted) >= 0 && (operator === ">=" || sameMajor);
  });
}

/** Returns the version that `command --version` prints, or null if the command is missing. */
function installed(command) {
  const { status, stdout } = spawnSync(command, ["--version"], { encoding: "utf8", cwd: root });
  return status === 0 ? (/\d+\.\d+(\.\d+)?/.exec(stdout)?.[0] ?? null) : null;
}

/** Returns one sentence for each missing or outdated requirement. */
export function problems() {
  const found = [];
  const { engines } = JSON.parse(readFileSync(`${root}/package.json`, "utf8"));
  if (!satisfies(process.versions.node, engines.node)) {
    found.push(`Node ${engines.node} is needed, this is ${process.versions.node}: see https://nodejs.org`);
  }
  const wanted =
    /^rust-version\s*=\s*"([^"]+)"/m.exec(readFileSync(`${root}/Cargo.toml`, "utf8"))?.[1] ?? "1.90";
  for (const command of ["rustc", "cargo"]) {
    const version = installed(command);
    const remedy = "install a stable Rust from https://rustup.rs (or `rustup update stable`)";
    if (version === null) found.push(`${command} ${wanted} or newer is needed and none was found: ${remedy}`);
    else if (compareVersions(version, wanted) < 0) {
      found.push(`${command} ${wanted} or newer is needed, this is ${version}: ${remedy}`);
    }
  }
  return found;
}

/** Exits with status 1 if something is missing. */
export function preflight() {
  const found = problems();
  for (const problem of found) console.error(`lowrank: ${problem}`);
  if (found.length > 0) process.exit(1);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) preflight();
