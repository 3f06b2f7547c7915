// `npm run pack:all`: the packages as they are published, as tarballs in packages/: the main one, and one of each
// platform whose binary can be built here. `--all` fails where one cannot be. Names choose among them, `main` or
// platforms, and fail likewise. `--out FOLDER`.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { GLIBC, TARGETS, pack, platforms, stageMain, stagePlatform } from "./packages.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

const { values, positionals } = parseArgs({
  options: { all: { type: "boolean", default: false }, out: { type: "string", default: "packages" } },
  allowPositionals: true,
});

function run(command, args, env = {}) {
  const shell = process.platform === "win32";
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: "inherit",
    shell,
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: failed`);
}

const answers = (command, args) => spawnSync(command, args, { encoding: "utf8", cwd: root });

/** Why a platform's binary cannot be built here; undefined where it can. */
function hindrance(name) {
  const { target } = TARGETS[name];
  const { stdout, status } = answers("rustc", ["--print", "target-libdir", "--target", target]);
  if (status !== 0 || !existsSync(stdout.trim()))
    return `Rust's library for ${target} is not here: rustup target add ${target}`;
  if (name.startsWith("linux")) {
    return answers("cargo-zigbuild", ["--version"]).status === 0
      ? undefined
      : "cargo-zigbuild is not here: pip install cargo-zigbuild ziglang";
  }
  return name.startsWith(process.platform) ? undefined : `it is built on ${name.split("-")[0]}`;
}

/** Builds the binary of a platform; gives its path. Linux's by zig, whose glibc is of the version that is asked for. */
function build(name) {
  const { target, library } = TARGETS[name];
  const linux = name.startsWith("linux");
  const of = linux && name.endsWith("gnu") ? `${target}.${GLIBC}` : target;
  // A library that is loaded cannot hold musl itself.
  const env = name.endsWith("musl") ? { RUSTFLAGS: "-C target-feature=-crt-static" } : {};
  const how = linux ? ["zigbuild"] : ["build"];
  run("cargo", [...how, "--locked", "--profile", "dist", "-p", "lowrank-node", "--target", of], env);
  return resolve(root, process.env.CARGO_TARGET_DIR ?? "target", target, "dist", library);
}

const known = ["main", ...platforms().map(({ name }) => name)];
const unknown = positionals.filter((name) => !known.includes(name));
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: no package; there are ${known.join(", ")}`);
const wanted = positionals.length > 0 ? positionals : known;
const binaries = wanted.filter((name) => name !== "main");
const hindered = new Map(
  binaries.map((name) => [name, hindrance(name)]).filter(([, why]) => why !== undefined),
);
for (const [name, why] of hindered) console.error(`lowrank: ${name}: left out, ${why}`);
if (hindered.size > 0 && (values.all || positionals.length > 0)) process.exit(1);

const staged = mkdtempSync(join(tmpdir(), "lowrank-pack-"));
try {
  const out = resolve(root, values.out);
  for (const name of binaries.filter((one) => !hindered.has(one))) {
    stagePlatform(join(staged, name), name, build(name));
    console.log(pack(join(staged, name), out));
  }
  if (wanted.includes("main")) {
    // The loader and its types come with a build of this platform.
    if (!existsSync(join(root, "native", "binding.cjs"))) run("npm", ["run", "build:native"]);
    run("npm", ["run", "build"]);
    stageMain(join(staged, "main"));
    console.log(pack(join(staged, "main"), out));
  }
} finally {
  rmSync(staged, { recursive: true });
}
