// Installs this tree's packages into a folder, from their tarballs and without a registry.
import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { pack, publishedManifest, stageMain, stageMpi } from "./packages.mjs";
import { must } from "./platforms/command.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The platform whose binary is installed. */
const PLATFORM = `linux-${process.arch}-gnu`;

/** Installs the main package, its binary package and its dependencies into `folder`/node_modules; `work` is for tarballs. */
export function installPackage(folder, work) {
  const modules = join(folder, "node_modules");
  mkdirSync(modules, { recursive: true });
  stageMain(join(work, "staged-main"));
  unpack(pack(join(work, "staged-main"), work), join(modules, "lowrank"));
  const staged = join(work, "staged-binary");
  cpSync(join(root, "npm", PLATFORM), staged, { recursive: true });
  const { main } = JSON.parse(readFileSync(join(staged, "package.json"), "utf8"));
  cpSync(join(root, "native", main), join(staged, main));
  unpack(pack(staged, work), join(modules, `lowrank-${PLATFORM}`));
  for (const name of Object.keys(publishedManifest().dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    cpSync(join(root, "node_modules", name), join(modules, name), { recursive: true, dereference: true });
  }
}

/** Installs lowrank-mpi with the binaries in npm/mpi. */
export function installMpi(folder, work) {
  const source = join(root, "npm", "mpi");
  const binaries = readdirSync(source).filter((name) => name.endsWith(".node"));
  stageMpi(
    join(work, "staged-mpi"),
    binaries.map((name) => join(source, name)),
  );
  unpack(pack(join(work, "staged-mpi"), work), join(folder, "node_modules", "lowrank-mpi"));
}

function unpack(tarball, folder) {
  mkdirSync(folder, { recursive: true });
  must("tar", ["-xzf", tarball, "--strip-components=1", "-C", folder]);
}
