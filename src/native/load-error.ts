/** Explains why the native binary could not be loaded, and how to fix it. */
import { LowrankError } from "../errors.js";
import { requireFromPackage } from "../package/files.js";

/** The platform on which the binary was to be loaded. */
export interface Platform {
  platform: string;
  arch: string;
  /** The version of glibc on Linux; undefined for another C library. */
  glibc: string | undefined;
  /** The version of this package and its binaries; undefined in a bundle, where package.json is not found. */
  version: string | undefined;
}

/** Target suffixes of the binary packages. */
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

/** Returns the platform of this process and the version of this package. */
export function detectPlatform(): Platform {
  let ownPackage: { name?: string; version?: string } = {};
  try {
    ownPackage = requireFromPackage("package.json") as typeof ownPackage;
  } catch {
    // Without a version, the error says that this is a bundle.
  }
  const version = ownPackage.name === "lowrank" ? ownPackage.version : undefined;
  const report = process.platform === "linux" ? process.report.getReport() : {};
  const { header } = report as { header?: { glibcVersionRuntime?: string } };
  const { platform, arch } = process;
  return { platform, arch, glibc: header?.glibcVersionRuntime, version };
}

/** Makes the `ERR_NATIVE_LOAD` error that replaces the loader's. */
export function createLoadError(cause: unknown, place: Platform): LowrankError {
  return new LowrankError("ERR_NATIVE_LOAD", explainFailure(cause, place), { cause });
}

function explainFailure(cause: unknown, { platform, arch, glibc, version }: Platform): string {
  const errors = listCauses(cause);
  const abi = platform === "linux" ? (glibc === undefined ? "-musl" : "-gnu") : "";
  const target = `${platform}-${arch}${platform === "win32" ? "-msvc" : abi}`;
  const name = `lowrank-${target}`;
  if (version === undefined)
    return (
      "lowrank was bundled, so its binary cannot be found; exclude it from the bundle: " +
      'esbuild --external:lowrank, Rollup and Vite external: ["lowrank"], webpack externals: { lowrank: "module lowrank" }'
    );
  if (!BINARIES.includes(target))
    return `there is no binary of lowrank for ${target}; there are ${BINARIES.join(", ")}`;
  // The loader tries a file, a package and others, and reports missing ones first; the real reason is a nested cause.
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
      `reinstall the package of this version, which needs only 2.17, or build it on this system (${reason})`
    );
  if (BLOCKED.test(reason))
    return (
      `the system blocks the binary of ${name}: antivirus software, a signature policy, or a file ` +
      `system mounted noexec; allow the file named here (${reason})`
    );
  return (
    `the binary of ${name} exists but cannot be loaded (${reason}); remove the folder node_modules/${name} and ` +
    `install it again: npm install --no-save ${name}@${version}`
  );
}

/** Messages of the loader about missing candidates. */
const MISSING = /^Cannot find |^Failed to load native binding|wasi/i;

const BLOCKED =
  /failed to map segment|Operation not permitted|Permission denied|Access is denied|blocked|virus|code signature|not valid for use in process|library load disallowed/i;

interface Cause {
  code?: string | undefined;
  message?: string | undefined;
  cause?: unknown;
}

/** Returns an error and its causes, outermost first. */
function listCauses(error: unknown): Cause[] {
  const all: Cause[] = [];
  for (
    let cause = error;
    typeof cause === "object" && cause !== null && all.length < 32;
    cause = (cause as Cause).cause
  )
    all.push(cause);
  return all;
}
