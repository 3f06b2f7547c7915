// Checks binaries before they are published: size, required glibc version and libraries.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

/** The oldest glibc that Linux binaries must support. */
export const GLIBC = "2.17";
/** The maximum unpacked size of a platform's package, in bytes. */
export const LARGEST = 18 * 2 ** 20;

/** Libraries that are part of each system; for Windows from version 10, without compiler runtimes. */
const SYSTEMS = {
  gnu: /^(lib(c|m|dl|pthread|rt)\.so\.\d+|ld-linux-(x86-64|aarch64)\.so\.\d)$/,
  musl: /^libc\.(musl-(x86_64|aarch64)\.so\.1|so)$/,
  msvc: /^(api-ms-win-.*|(advapi32|bcrypt|bcryptprimitives|cfgmgr32|combase|crypt32|d3d11|d3d12|d3dcompiler_47|dbghelp|dcomp|dwmapi|dxgi|gdi32|imm32|iphlpapi|kernel32|msvcrt|ntdll|ole32|oleaut32|opengl32|pdh|powrprof|propsys|psapi|secur32|setupapi|shell32|shlwapi|ucrtbase|user32|userenv|version|winmm|ws2_32)\.dll)$/i,
};

/** Throws if a binary is too large, or needs a newer glibc or other libraries than allowed. */
export function checkBinary(name, binary) {
  if (!existsSync(binary)) throw new Error(`${name}: ${binary} has not been built`);
  const { size } = statSync(binary);
  if (size > LARGEST) throw new Error(`${name}: ${binary} takes ${size} bytes, and may take ${LARGEST}`);
  const system = SYSTEMS[name.split("-").at(-1)];
  if (system === undefined) return;
  const { versions, libraries } = needed(binary);
  const newer = versions.filter((version) => compare(version, GLIBC) > 0);
  if (newer.length > 0)
    throw new Error(`${name}: ${binary} needs glibc ${newer.join(", ")}, and may need ${GLIBC}`);
  const other = libraries.filter((library) => !system.test(library));
  if (other.length > 0)
    throw new Error(`${name}: ${binary} needs ${other.join(", ")}, which systems may not have`);
  // Every binary needs at least one library; none means that objdump could not read it.
  if (libraries.length === 0) throw new Error(`${name}: objdump reports no library that ${binary} needs`);
}

/** Returns the glibc versions that a Linux binary requires, and the libraries that a Linux or Windows binary needs. */
export function needed(binary) {
  const failed = [];
  for (const objdump of objdumps()) {
    const { status, stdout, error } = spawnSync(objdump, ["-p", binary], {
      encoding: "utf8",
      maxBuffer: 2 ** 28,
    });
    const all = (pattern) => [...new Set([...(stdout ?? "").matchAll(pattern)].map((found) => found[1]))];
    if (status === 0)
      return {
        versions: all(/GLIBC_(\d[\d.]*)/g),
        libraries: [...all(/^\s+NEEDED\s+(\S+)/gm), ...all(/^\s+DLL Name: (\S+)/gm)],
      };
    failed.push(`${objdump}: ${error?.message ?? `status ${status}`}`);
  }
  throw new Error(
    `${binary} cannot be read: ${failed.join("; ")}; binutils has objdump, and rustup's component llvm-tools llvm-objdump`,
  );
}

/** Returns the objdump programs to try: binutils', LLVM's, and rustup's llvm-tools; each can read binaries of other systems. */
function objdumps() {
  const { status, stdout } = spawnSync("rustc", ["--print", "sysroot"], { encoding: "utf8" });
  const targets = status === 0 ? join(stdout.trim(), "lib", "rustlib") : undefined;
  const own = targets !== undefined && existsSync(targets) ? readdirSync(targets) : [];
  const program = process.platform === "win32" ? "llvm-objdump.exe" : "llvm-objdump";
  const tools = own.map((target) => join(targets, target, "bin", program)).filter((path) => existsSync(path));
  return ["objdump", "llvm-objdump", ...tools];
}

function compare(a, b) {
  const [x, y] = [a, b].map((version) => version.split(".").map(Number));
  return x[0] - y[0] || (x[1] ?? 0) - (y[1] ?? 0) || (x[2] ?? 0) - (y[2] ?? 0);
}
