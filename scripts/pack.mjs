// `npm run pack:all`: packs the packages for publishing, as tarballs in packages/: the main one, and one per platform that
// can be built here, and lowrank-mpi. Names select `main`, `mpi` or platforms. With `--all` or names, a package that cannot
// be built is an error. `--out FOLDER` selects another folder. A platform's binary of lowrank-mpi is built with its package
// and kept in packages/mpi/, from which `mpi` packs the binaries of all platforms.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildBinary, forTrial, hindrance, run } from "./build-binary.mjs";
import { checkBinary } from "./check-binary.mjs";
import { MPI_BINARIES, pack, platforms, stageMain, stageMpi, stagePlatform } from "./packages.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

const { values, positionals } = parseArgs({
  options: { all: { type: "boolean", default: false }, out: { type: "string", default: "packages" } },
  allowPositionals: true,
});

const known = ["main", "mpi", ...platforms().map(({ name }) => name)];
const unknown = positionals.filter((name) => !known.includes(name));
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: no package; there are ${known.join(", ")}`);
const wanted = positionals.length > 0 ? positionals : known;
const binaries = wanted.filter((name) => name !== "main" && name !== "mpi");
const trial = "mingw's is for trial alone, and what is published is built on win32";
const why = (name) => hindrance(name) ?? (values.all && forTrial(name) ? trial : undefined);
const hindered = new Map(binaries.map((name) => [name, why(name)]).filter(([, told]) => told !== undefined));
for (const [name, told] of hindered) console.error(`lowrank: ${name}: left out, ${told}`);
if (hindered.size > 0 && (values.all || positionals.length > 0)) process.exit(1);

/** Builds a platform's binary of lowrank-mpi into `folder`. */
function buildMpi(platform, folder) {
  const binary = buildBinary(platform, "lowrank-mpi");
  checkBinary(platform, binary);
  mkdirSync(folder, { recursive: true });
  cpSync(binary, join(folder, MPI_BINARIES[platform]));
}

/** Returns the binaries of lowrank-mpi in `folder`. Throws if none is there, or with `all` if one is missing. */
function listMpi(folder, all) {
  const found = existsSync(folder) ? readdirSync(folder) : [];
  const names = Object.values(MPI_BINARIES);
  const missing = names.filter((name) => !found.includes(name));
  if (missing.length === names.length || (all && missing.length > 0))
    throw new Error(`${folder} lacks ${missing.join(", ")}; pack their platforms first`);
  if (missing.length > 0)
    console.error(`lowrank: lowrank-mpi: left out, not built here: ${missing.join(", ")}`);
  return names.filter((name) => found.includes(name)).map((name) => join(folder, name));
}

const staged = mkdtempSync(join(tmpdir(), "lowrank-pack-"));
try {
  const out = resolve(root, values.out);
  for (const name of binaries.filter((one) => !hindered.has(one))) {
    if (forTrial(name)) console.error(`lowrank: ${name}: ${trial}`);
    stagePlatform(join(staged, name), name, buildBinary(name));
    console.log(pack(join(staged, name), out));
    if (name in MPI_BINARIES) buildMpi(name, join(out, "mpi"));
  }
  if (wanted.includes("mpi")) {
    stageMpi(join(staged, "mpi"), listMpi(join(out, "mpi"), values.all || positionals.length > 0));
    console.log(pack(join(staged, "mpi"), out));
  }
  if (wanted.includes("main")) {
    // A build of this platform also writes the loader and its types.
    if (!existsSync(join(root, "native", "binding.cjs"))) run("npm", ["run", "build:native"]);
    run("npm", ["run", "build"]);
    stageMain(join(staged, "main"));
    console.log(pack(join(staged, "main"), out));
  }
} finally {
  rmSync(staged, { recursive: true });
}
