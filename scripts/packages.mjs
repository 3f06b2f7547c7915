// What is published: one package of JavaScript and one of each platform's binary, staged as folders that npm packs.
// No dependencies.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkBinary } from "./check-binary.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const windows = process.platform === "win32";

/** Rust's name of each platform, and what its compiler calls the library. */
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

/** Fields of package.json that are a user's; the others are for those who work on it. */
const PUBLISHED =
  "name version description keywords license author type exports sideEffects types typesVersions bin files engines dependencies";

const manifest = (folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));

/** The packages of binaries: name of the platform, and its package.json. */
export function platforms() {
  return readdirSync(join(root, "npm")).map((name) => ({
    name,
    manifest: manifest(join(root, "npm", name)),
  }));
}

/** The package.json that is published: it names every platform's package, at its own version. */
export function publishedManifest() {
  const whole = manifest(root);
  const kept = Object.fromEntries(
    Object.entries(whole).filter(([field]) => PUBLISHED.split(" ").includes(field)),
  );
  const binaries = platforms().map((platform) => [platform.manifest.name, whole.version]);
  return { ...kept, optionalDependencies: Object.fromEntries(binaries) };
}

/** Stages the main package; `dist` is what was compiled. */
export function stageMain(folder, dist = join(root, "dist")) {
  mkdirSync(folder, { recursive: true });
  cpSync(dist, join(folder, "dist"), { recursive: true });
  for (const name of ["README.md", "LICENSE", join("models", "default")])
    cpSync(join(root, name), join(folder, name), { recursive: true });
  for (const name of ["binding.cjs", "binding.d.ts"])
    cpSync(join(root, "native", name), join(folder, "native", name));
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(publishedManifest(), null, 2)}\n`);
}

/** Stages a platform's package around its binary. Throws where the binary is not what may be published. */
export function stagePlatform(folder, name, binary) {
  checkBinary(name, binary);
  cpSync(join(root, "npm", name), folder, { recursive: true });
  cpSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  cpSync(binary, join(folder, manifest(folder).main));
}

/** Packs a staged folder into `out`; gives the tarball's path. */
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

/** The tarballs in a folder in the order of publishing, the main one last; throws where one of any platform lacks. */
export function publishedTarballs(folder) {
  const { version } = publishedManifest();
  const names = [...platforms().map((platform) => platform.manifest.name), "lowrank"];
  const tarballs = names.map((name) => join(folder, `${name}-${version}.tgz`));
  const missing = tarballs.filter((path) => !existsSync(path));
  if (missing.length > 0) throw new Error(`ERR: not all packages are there: ${missing.join(", ")}`);
  return tarballs;
}
