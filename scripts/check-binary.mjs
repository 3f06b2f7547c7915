// What no binary that is published may be: too large, or in need of what a system may lack.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

/** The oldest glibc that binaries of Linux may need. */
export const GLIBC = "2.17";
/** Bytes that a platform's package takes unpacked, at most. */
export const LARGEST = 18 * 2 ** 20;

/** The libraries that a system has by itself. Windows's: from Windows 10 on; a compiler's own are not among them. */
const SYSTEMS = {
  gnu: /^(lib(c|m|dl|pthread|rt)\.so\.\d+|ld-linux-(x86-64|aarch64)\.so\.\d)$/,
  musl: /^libc\.(musl-(x86_64|aarch64)\.so\.1|so)$/,
  msvc: /^(api-ms-win-.*|(advapi32|bcrypt|bcryptprimitives|cfgmgr32|combase|crypt32|d3d11|d3d12|d3dcompiler_47|dbghelp|dcomp|dwmapi|dxgi|gdi32|imm32|iphlpapi|kernel32|msvcrt|ntdll|ole32|oleaut32|opengl32|pdh|powrprof|propsys|psapi|secur32|setupapi|shell32|shlwapi|ucrtbase|user32|userenv|version|winmm|ws2_32)\.dll)$/i,
};

/** Throws where a binary is too large, or needs a newer glibc or other libraries than it may. */
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
  // A binary of each platform needs one library at least: none means that nothing was read.
  if (libraries.length === 0) throw new Error(`${name}: objdump tells of no library that ${binary} needs`);
}

/** Versions of glibc that a binary of Linux asks for, and the libraries that a binary of Linux or Windows needs. */
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

/** That of binutils, LLVM's, and the one of rustup's component llvm-tools; each reads binaries of other systems too. */
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
