// `npm run build:mpi`: builds the addon of the package lowrank-mpi for this platform into npm/mpi/, and links the package
// into node_modules/.
import { spawnSync } from "node:child_process";
import { copyFileSync, rmSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const built = resolve(root, process.env.CARGO_TARGET_DIR ?? "target");
const library = process.platform === "darwin" ? "liblowrank_mpi.dylib" : "liblowrank_mpi.so";

const { status } = spawnSync("cargo", ["build", "--release", "-p", "lowrank-mpi"], {
  cwd: root,
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);
const binary = join(root, "npm", "mpi", `lowrank-mpi.${process.platform}-${process.arch}.node`);
// A new file: a running process may have mapped the old one.
rmSync(binary, { force: true });
copyFileSync(join(built, "release", library), binary);
const link = join(root, "node_modules", "lowrank-mpi");
rmSync(link, { recursive: true, force: true });
symlinkSync(join(root, "npm", "mpi"), link, "dir");
