// Builds the binary of a platform, on that platform or by cross-compilation.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { GLIBC } from "./check-binary.mjs";
import { TARGETS } from "./packages.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const built = resolve(root, process.env.CARGO_TARGET_DIR ?? "target");

/** On Linux, mingw links Windows binaries for testing; Windows's own ABI can be linked only on Windows. */
const MINGW = { target: "x86_64-pc-windows-gnu", compiler: "x86_64-w64-mingw32-gcc" };

/** Runs a command in the checkout with its output shown; throws if it fails. */
export function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: "inherit",
    shell: process.platform === "win32",
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? "failed"}`);
}

const answers = (command, args) => spawnSync(command, args, { encoding: "utf8", cwd: root });

/** Returns the output of `rustc --print` as a path. */
function printed(what, target) {
  const { stdout, status } = answers("rustc", ["--print", what, "--target", target]);
  return status === 0 ? stdout.trim() : "";
}

/** Whether Rust's standard library for a target is built, available as source (from rustup's rust-src or Debian's package), or missing. */
function library(target) {
  if (existsSync(printed("target-libdir", target))) return "built";
  const sources = join(printed("sysroot", target), "lib", "rustlib", "src", "rust", "library");
  return existsSync(join(sources, "Cargo.lock")) ? sources : undefined;
}

const triple = (name) => (forTrial(name) ? MINGW.target : TARGETS[name].target);

/** Whether a binary built here is only for testing and differs from the published one. */
export const forTrial = (name) => name === "win32-x64-msvc" && process.platform === "linux";

/** Returns the reason why a platform's binary cannot be built here; undefined if it can. */
export function hindrance(name) {
  const zig = name.startsWith("linux");
  if (!zig && !forTrial(name) && !name.startsWith(process.platform))
    return `it is built on ${name.split("-")[0]}`;
  if (zig && answers("cargo-zigbuild", ["--version"]).status !== 0)
    return "cargo-zigbuild is not here: pip install cargo-zigbuild ziglang";
  if (forTrial(name) && answers(MINGW.compiler, ["--version"]).status !== 0)
    return `it is built on win32, or for trial by mingw, and ${MINGW.compiler} is not here`;
  const target = triple(name);
  if (library(target) === undefined)
    return `Rust's library for ${target} is not here: rustup target add ${target}, or rustup component add rust-src`;
  return undefined;
}

/** Returns cargo's arguments for a platform: the target, and the option to build the standard library if it is not built. */
function forTarget(name, parts = "std,panic_unwind") {
  const target = triple(name);
  const std = library(target);
  const of = name.startsWith("linux") && name.endsWith("gnu") ? `${target}.${GLIBC}` : target;
  const args = ["--locked", "--target", of];
  const env = forTrial(name) ? mingw(std) : linking(name);
  if (std === "built") return { args, env };
  // RUSTC_BOOTSTRAP permits a stable compiler to build its standard library.
  return { args: [...args, "-Z", `build-std=${parts}`], env: { ...env, RUSTC_BOOTSTRAP: "1" } };
}

/**
 * Builds the binary of a platform and returns its path: the engine's, or the one of another crate. For Linux, zig links
 * against the requested version of glibc.
 */
export function buildBinary(name, crate = "lowrank-node") {
  const how = name.startsWith("linux") ? "zigbuild" : "build";
  const { args, env } = forTarget(name);
  run("cargo", [how, "--profile", "dist", "-p", crate, ...args], env);
  const library = TARGETS[name].library.replace("lowrank_node", crate.replaceAll("-", "_"));
  return join(built, triple(name), "dist", library);
}

/** Builds the tests of a platform's crates and returns their paths by crate. */
export function buildTests(name, crates) {
  const command = name.startsWith("linux") ? "cargo-zigbuild" : "cargo";
  const { args, env } = forTarget(name, "std,panic_unwind,test");
  const of = crates.flatMap((crate) => ["-p", crate]);
  const how = ["test", "--no-run", "--release", "--lib", "--message-format", "json-render-diagnostics"];
  const { status, stdout } = spawnSync(command, [...how, ...of, ...args], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(`${command} test of ${crates.join(", ")} for ${name} failed`);
  const lines = stdout.split("\n").filter((line) => line.startsWith("{"));
  const tests = lines.map((line) => JSON.parse(line)).filter(({ profile }) => profile?.test);
  return Object.fromEntries(tests.map(({ target, executable }) => [target.name, executable]));
}

/** Type-checks the binding and its dependencies for a platform that cannot be linked here. */
export function checkTypes(name) {
  const { args, env } = forTarget(name);
  run("cargo", ["check", "--release", "-p", "lowrank-node", ...args], env);
}

/** Returns the linking options for the C library. */
function linking(name) {
  // A shared library cannot contain musl.
  if (name.endsWith("musl")) return { RUSTFLAGS: "-C target-feature=-crt-static" };
  // Visual C++'s runtime is not part of Windows.
  if (name.endsWith("msvc")) return { RUSTFLAGS: "-C target-feature=+crt-static" };
  return {};
}

/** Makes the files that mingw needs in addition to Rust's built library: startup objects, and an import library for Node. */
function mingw(std) {
  const folder = join(built, MINGW.target, "mingw");
  mkdirSync(folder, { recursive: true });
  // The binary looks up Node's functions when it is loaded, so the library is named but never loaded.
  writeFileSync(join(folder, "node.def"), "LIBRARY libnode.dll\nEXPORTS\n  napi_module_register\n");
  const dlltool = MINGW.compiler.replace("gcc", "dlltool");
  run(dlltool, ["-d", join(folder, "node.def"), "-l", join(folder, "libnode.dll")]);
  if (std !== "built")
    for (const part of ["rsbegin", "rsend"]) {
      const source = join(std, "rtstartup", `${part}.rs`);
      const args = ["--target", MINGW.target, "--emit", "obj", "-o", join(folder, `${part}.o`), source];
      run("rustc", args, { RUSTC_BOOTSTRAP: "1" });
    }
  return { LIBNODE_PATH: folder, RUSTFLAGS: `-L native=${folder}` };
}
