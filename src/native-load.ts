/** Why the engine's binary did not load, and what to do about it. */
import { LowrankError } from "./errors.js";
import { fromPackage } from "./place.js";

/** Where the binary was to be loaded. */
export interface Place {
  platform: string;
  arch: string;
  /** The version of the C library that runs, where it is glibc; of Linux alone. */
  glibc: string | undefined;
  /** This package's version, which is its binaries', too; undefined in a bundle, where its files are not found. */
  version: string | undefined;
}

/** What packages of binaries are named by. */
export const BINARIES = [
  "linux-x64-gnu",
  "linux-arm64-gnu",
  "linux-x64-musl",
  "linux-arm64-musl",
  "darwin-x64",
  "darwin-arm64",
  "win32-x64-msvc",
  "win32-arm64-msvc",
];

/** Where this process runs, and which version this is. */
export function here(): Place {
  let own: { name?: string; version?: string } = {};
  try {
    own = fromPackage("package.json") as typeof own;
  } catch {
    // What is told then is that this is a bundle.
  }
  const version = own.name === "lowrank" ? own.version : undefined;
  const report = process.platform === "linux" ? process.report.getReport() : {};
  const { header } = report as { header?: { glibcVersionRuntime?: string } };
  const { platform, arch } = process;
  return { platform, arch, glibc: header?.glibcVersionRuntime, version };
}

/** The error to throw instead of what the loader threw: `ERR_NATIVE_LOAD`. */
export function loadError(cause: unknown, place: Place): LowrankError {
  return new LowrankError("ERR_NATIVE_LOAD", told(cause, place), { cause });
}

function told(cause: unknown, { platform, arch, glibc, version }: Place): string {
  const errors = chain(cause);
  const abi = platform === "linux" ? (glibc === undefined ? "-musl" : "-gnu") : "";
  const target = `${platform}-${arch}${platform === "win32" ? "-msvc" : abi}`;
  const name = `lowrank-${target}`;
  if (version === undefined)
    return (
      "lowrank was taken into a bundle, where its binary is not found; leave it out of the bundle: " +
      'esbuild --external:lowrank, Rollup and Vite external: ["lowrank"], webpack externals: { lowrank: "module lowrank" }'
    );
  if (!BINARIES.includes(target))
    return `there is no binary of lowrank for ${target}; there are ${BINARIES.join(", ")}`;
  // The loader tries a file, a package and others, and speaks of what is missing; what is wrong stands deeper.
  const lines = errors.map(({ message = "" }) => message.split("\n")[0] as string);
  const reason = lines.find((line) => line !== "" && !MISSING.test(line));
  if (reason === undefined)
    return (
      `the package ${name}, which holds the binary for this platform, is not installed. npm leaves it out where a ` +
      "lock file was made on another platform, and with --omit=optional. " +
      `Install it: npm install --no-save ${name}@${version}; or remove node_modules and package-lock.json, and npm install`
    );
  const wanted = /version [`']GLIBC_([\d.]+)' not found/.exec(reason)?.[1];
  if (wanted !== undefined)
    return (
      `the binary of ${name} needs glibc ${wanted}, and this system has ${glibc ?? "an older one"}; ` +
      `install the package of this version anew, which needs no more than 2.17, or build it on this system (${reason})`
    );
  if (BLOCKED.test(reason))
    return (
      `the system does not let the binary of ${name} be loaded: an antivirus, a policy of signatures, or a file ` +
      `system that is mounted noexec; allow the file that is named here (${reason})`
    );
  return (
    `the binary of ${name} is there and does not load (${reason}); remove the folder node_modules/${name} and ` +
    `install it again: npm install --no-save ${name}@${version}`
  );
}

/** What the loader says of a place where nothing is. */
const MISSING = /^Cannot find |^Failed to load native binding|wasi/i;

const BLOCKED =
  /failed to map segment|Operation not permitted|Permission denied|Access is denied|blocked|virus|code signature|not valid for use in process|library load disallowed/i;

interface Cause {
  code?: string | undefined;
  message?: string | undefined;
  cause?: unknown;
}

/** An error and what caused it, the outermost first. */
function chain(error: unknown): Cause[] {
  const all: Cause[] = [];
  for (let at = error; typeof at === "object" && at !== null && all.length < 32; at = (at as Cause).cause)
    all.push(at);
  return all;
}
