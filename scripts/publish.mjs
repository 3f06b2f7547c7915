// Publishes the tarballs of a folder: first the platforms' packages and lowrank-mpi, then the main one. Versions already
// published are skipped. `node scripts/publish.mjs packages [--dry-run]`.
import { spawnSync } from "node:child_process";
import { relative } from "node:path";
import { parseArgs } from "node:util";
import { publishedTarballs } from "./packages.mjs";

const { values, positionals } = parseArgs({
  options: { "dry-run": { type: "boolean", default: false } },
  allowPositionals: true,
});
const npm = (args, stdio) =>
  spawnSync("npm", args, { encoding: "utf8", stdio, shell: process.platform === "win32" });

for (const tarball of publishedTarballs(positionals[0] ?? "packages")) {
  const [, name, version] = /([^/\\]+)-(\d+\.\d+\.\d+[^/\\]*)\.tgz$/.exec(tarball);
  if (npm(["view", `${name}@${version}`, "version"], "pipe").stdout?.trim() === version) {
    console.log(`${name}@${version} is published`);
    continue;
  }
  // Without "./", npm treats a folder and a name as a repository.
  const path = `./${relative(process.cwd(), tarball)}`;
  const how = values["dry-run"] ? ["--dry-run"] : ["--provenance"];
  const { status } = npm(["publish", path, "--access", "public", "--ignore-scripts", ...how], "inherit");
  if (status !== 0) process.exit(1);
}
