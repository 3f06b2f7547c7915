// Stages the packages for publishing: one with the JavaScript, and one per platform with its binary.
// This file has no dependencies.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkBinary } from "./check-binary.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const windows = process.platform === "win32";

/** Rust's target of each platform, and the file name of the library that it builds. */
export const TARGETS = {
  "linux-x64-gnu": { target: "x86_64-unknown-linux-gnu", library: "liblowrank_node.so" },
  "linux-arm64-gnu": { target: "aarch64-unknown-linux-gnu", library: "liblowrank_node.so" },
  "linux-x64-musl": { target: "x86_64-unknown-linux-musl", library: "liblowrank_node.so" },
  "linux-arm64-musl": { target: "aarch64-unknown-linux-musl", library: "liblowrank_node.so" },
  "darwin-x64": { target: "x86_64-apple-darwin", library: "liblowrank_node.dylib" },
  "darwin-arm64": { target: "aarch64-apple-darwin", library: "liblowrank_node.dylib" },
  "win32-x64-msvc": { target: "x86_64-pc-windows-msvc", library: "lowrank_node.dll" },
  "win32-arm64-msvc": { target: "aarch64-pc-windows-msvc", library: "lowrank_node.dll" },
};

/** The binaries of lowrank-mpi by the platform that builds them: it has no variants for C libraries, and none for Windows. */
export const MPI_BINARIES = Object.fromEntries(
  ["linux-x64-gnu", "linux-arm64-gnu", "darwin-x64", "darwin-arm64"].map((name) => [
    name,
    `lowrank-mpi.${name.replace("-gnu", "")}.node`,
  ]),
);

/** Fields of package.json for users; the other fields are for development. */
const PUBLISHED =
  "name version description keywords license author type exports sideEffects types typesVersions bin files engines dependencies";

const manifest = (folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));

/** Returns the binary packages: the name of each platform, with its package.json. */
export function platforms() {
  const names = readdirSync(join(root, "npm")).filter((name) => name in TARGETS);
  return names.map((name) => ({
    name,
    manifest: manifest(join(root, "npm", name)),
  }));
}

/** Returns the published package.json, which names every platform's package at its own version. */
export function publishedManifest() {
  const whole = manifest(root);
  const kept = Object.fromEntries(
    Object.entries(whole).filter(([field]) => PUBLISHED.split(" ").includes(field)),
  );
  const binaries = platforms().map((platform) => [platform.manifest.name, whole.version]);
  return { ...kept, optionalDependencies: Object.fromEntries(binaries) };
}

/** Stages the main package; `dist` is the folder with the build. */
export function stageMain(folder, dist = join(root, "dist")) {
  mkdirSync(folder, { recursive: true });
  cpSync(dist, join(folder, "dist"), { recursive: true });
  for (const name of ["README.md", "LICENSE", join("models", "default")])
    cpSync(join(root, name), join(folder, name), { recursive: true });
  for (const name of ["binding.cjs", "binding.d.ts"])
    cpSync(join(root, "native", name), join(folder, "native", name));
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(publishedManifest(), null, 2)}\n`);
}

/** Stages a platform's package with its binary. Throws if the binary must not be published. */
export function stagePlatform(folder, name, binary) {
  checkBinary(name, binary);
  cpSync(join(root, "npm", name), folder, { recursive: true });
  cpSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  cpSync(binary, join(folder, manifest(folder).main));
}

/** Stages lowrank-mpi with its binaries, at the version of the main package. */
export function stageMpi(folder, binaries) {
  const source = join(root, "npm", "mpi");
  const whole = manifest(source);
  mkdirSync(folder, { recursive: true });
  for (const name of ["README.md", ...whole.files.filter((name) => !name.includes("*"))])
    cpSync(join(source, name), join(folder, name));
  cpSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  for (const binary of binaries) cpSync(binary, join(folder, basename(binary)));
  const published = { ...whole, version: publishedManifest().version };
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
}

/** Packs a staged folder into `out`; returns the tarball's path. */
export function pack(folder, out) {
  mkdirSync(out, { recursive: true });
  const args = ["pack", "--silent", "--ignore-scripts", "--pack-destination", out];
  const { status, stdout, stderr } = spawnSync(windows ? "npm.cmd" : "npm", args, {
    cwd: folder,
    encoding: "utf8",
    shell: windows,
  });
  if (status !== 0) throw new Error(`npm pack in ${folder}: ${stderr}`);
  return join(out, stdout.trim().split("\n").at(-1));
}

/** Returns the tarballs in a folder by order of publication, the main one last; throws if a platform is missing. */
export function publishedTarballs(folder) {
  const { version } = publishedManifest();
  const names = [...platforms().map((platform) => platform.manifest.name), "lowrank-mpi", "lowrank"];
  const tarballs = names.map((name) => join(folder, `${name}-${version}.tgz`));
  const missing = tarballs.filter((path) => !existsSync(path));
  if (missing.length > 0) throw new Error(`ERR: not all packages are there: ${missing.join(", ")}`);
  return tarballs;
}
