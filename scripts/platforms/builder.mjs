// The root for builds: Debian 12 with current Rust, zig and mingw, and a copy of the checkout as git sees it. For platforms without a Rust standard
// library in Debian, it has the library's source.
import {
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { must } from "./command.mjs";
import { debian, enter, mustEnter } from "./debian.mjs";
import { NODES, nodeFor, npm } from "./node.mjs";

const checkout = fileURLToPath(new URL("../..", import.meta.url));

const PACKAGES = [
  ...["ca-certificates", "rustc-web", "cargo-web", "libstd-rust-web-dev", "rust-web-src", "gcc", "libc6-dev"],
  ...["binutils", "gcc-mingw-w64-x86-64-posix", "python3-venv"],
];
const ZIG = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"];

/** Creates or updates the root; returns the arguments that `pack` needs. */
export function builder(folder, tell) {
  const root = debian(folder, "builder", "bookworm", PACKAGES, { tell });
  if (!existsSync(join(root, "opt/zig/bin/cargo-zigbuild"))) {
    mustEnter(root, ["python3", "-m", "venv", "/opt/zig"]);
    mustEnter(root, ["/opt/zig/bin/pip", "install", "-q", ...ZIG]);
  }
  const source = join(folder, "src");
  copySource(source);
  const bin = join(folder, "bin", "builder");
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "npm"), '#!/bin/sh\nexec node /opt/npm/bin/npm-cli.js "$@"\n', { mode: 0o755 });
  const binds = {
    "/src": source,
    "/build": join(folder, "cargo"),
    "/opt/node": nodeFor(folder, "linux-x64", NODES[2]),
    "/opt/npm": npm(folder),
    "/opt/bin": bin,
  };
  for (const made of [binds["/build"], source]) mkdirSync(made, { recursive: true });
  const env = {
    PATH: "/opt/zig/bin:/opt/node/bin:/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    CARGO_HOME: "/build/cargo",
    CARGO_TARGET_DIR: "/build/target",
  };
  const options = { binds, env, cwd: "/src" };
  const lock = join(folder, "package-lock.json");
  const wanted = join(source, "package-lock.json");
  if (!existsSync(lock) || readFileSync(lock, "utf8") !== readFileSync(wanted, "utf8")) {
    tell("npm ci");
    mustEnter(root, ["npm", "ci"], options);
    cpSync(wanted, lock);
  }
  return { root, options, packages: join(source, "packages") };
}

/** Packs `main` or a platform's package; returns its tarball. Throws with the end of the build's output. */
export function pack({ root, options, packages }, folder, name) {
  const log = join(folder, `${name}.log`);
  const file = openSync(log, "w");
  const run = ["npm", "run", "pack:all", "--", name];
  const { status } = enter(root, run, { ...options, stdio: ["ignore", file, file], seconds: 7200 });
  closeSync(file);
  const wrote = readFileSync(log, "utf8");
  if (status !== 0) throw new Error(`status ${status}, see ${log}: ${wrote.trim().slice(-400)}`);
  const tarball = /^\S+\.tgz$/m.exec(wrote)?.[0];
  return join(packages, tarball.split("/").at(-1));
}

/** Bytes of a package, packed and unpacked. */
export function sizes(tarball) {
  const listed = must("tar", ["-tvzf", tarball]).trim().split("\n");
  const unpacked = listed.reduce((sum, line) => sum + Number(line.split(/\s+/)[2]), 0);
  return { packed: statSync(tarball).size, unpacked };
}

/** Copies the files that git tracks or would add, and the built loader; unchanged files keep their time. */
function copySource(target) {
  const listed = must("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"], {
    cwd: checkout,
  });
  const made = ["native/binding.cjs", "native/binding.d.ts"];
  const files = [...listed.split("\0"), ...made].filter((name) => name && existsSync(join(checkout, name)));
  for (const name of files) {
    const [from, to] = [join(checkout, name), join(target, name)];
    const [now, then] = [from, to].map((path) => statSync(path, { throwIfNoEntry: false }));
    if (then?.size !== now.size || Math.abs(then.mtimeMs - now.mtimeMs) > 1)
      cpSync(from, to, { preserveTimestamps: true });
  }
  removeOthers(target, new Set(files), "");
}

/** Removes files that the checkout no longer has, except build output. */
function removeOthers(target, files, under) {
  for (const entry of readdirSync(join(target, under), { withFileTypes: true })) {
    const name = under === "" ? entry.name : `${under}/${entry.name}`;
    if (["node_modules", "dist", "packages", "native"].includes(name)) continue;
    if (entry.isDirectory()) removeOthers(target, files, name);
    else if (!files.has(name)) rmSync(join(target, name));
  }
}
