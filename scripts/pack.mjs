// `npm run pack:all`: packs the packages for publishing, as tarballs in packages/: the main one, and one per platform that
// can be built here. Names select `main` or platforms. With `--all` or names, a package that cannot be built is an error.
// `--out FOLDER` selects another folder.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildBinary, forTrial, hindrance, run } from "./build-binary.mjs";
import { pack, platforms, stageMain, stagePlatform } from "./packages.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

const { values, positionals } = parseArgs({
  options: { all: { type: "boolean", default: false }, out: { type: "string", default: "packages" } },
  allowPositionals: true,
});

const known = ["main", ...platforms().map(({ name }) => name)];
const unknown = positionals.filter((name) => !known.includes(name));
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: no package; there are ${known.join(", ")}`);
const wanted = positionals.length > 0 ? positionals : known;
const binaries = wanted.filter((name) => name !== "main");
const trial = "mingw's is for trial alone, and what is published is built on win32";
const why = (name) => hindrance(name) ?? (values.all && forTrial(name) ? trial : undefined);
const hindered = new Map(binaries.map((name) => [name, why(name)]).filter(([, told]) => told !== undefined));
for (const [name, told] of hindered) console.error(`lowrank: ${name}: left out, ${told}`);
if (hindered.size > 0 && (values.all || positionals.length > 0)) process.exit(1);

const staged = mkdtempSync(join(tmpdir(), "lowrank-pack-"));
try {
  const out = resolve(root, values.out);
  for (const name of binaries.filter((one) => !hindered.has(one))) {
    if (forTrial(name)) console.error(`lowrank: ${name}: ${trial}`);
    stagePlatform(join(staged, name), name, buildBinary(name));
    console.log(pack(join(staged, name), out));
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
