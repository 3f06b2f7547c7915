// SwiftShader, Chromium's software Vulkan driver, from an npm package that contains it as a file. `node
// scripts/drivers/swiftshader.mjs FOLDER` downloads it to a folder and prints the path of its manifest, for
// VK_DRIVER_FILES.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { must } from "../platforms/command.mjs";

const PACKAGE = "@sparticuz/chromium@153.0.0";
const PART = "package/bin/swiftshader.tar.br";
const LIBRARY = "libvk_swiftshader.so";
const SHA256 = "2f3ceffaaca7d031bc3943f8eacf398a5d9c42c5fe0d15d8840b9acfa630b58e";

/** Returns the path of the driver's manifest in `folder`; downloads it once. Throws if its hash is not the pinned one. */
export function swiftshader(folder) {
  const made = join(folder, "swiftshader");
  const library = join(made, LIBRARY);
  if (!existsSync(library)) fetchInto(made);
  check(readFileSync(library));
  return manifest(made, library);
}

/** Throws unless the bytes have the pinned hash. */
export function check(bytes, expected = SHA256) {
  const found = createHash("sha256").update(bytes).digest("hex");
  if (found !== expected)
    throw new Error(`${LIBRARY} of ${PACKAGE} has the SHA-256 ${found}, and not the pinned ${expected}`);
}

/** Writes a driver's manifest with the absolute path of its library; returns the manifest's path. */
export function manifest(folder, library, version = "1.1.0") {
  const path = join(folder, "driver.json");
  const ICD = { library_path: library, api_version: version };
  writeFileSync(path, JSON.stringify({ file_format_version: "1.0.0", ICD }));
  return path;
}

/** Downloads the package's tarball to an empty folder. */
function packInto(folder) {
  // npm repeats a request that gets no answer, but not one that breaks off.
  for (let attempt = 1; ; attempt++) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    try {
      return must("npm", ["pack", "--loglevel=error", PACKAGE], { cwd: folder });
    } catch (error) {
      if (attempt === 3) throw error;
    }
  }
}

function fetchInto(made) {
  const partial = `${made}.part`;
  packInto(partial);
  const [tarball] = readdirSync(partial);
  must("tar", ["-xzf", tarball, PART], { cwd: partial });
  writeFileSync(join(partial, "driver.tar"), brotliDecompressSync(readFileSync(join(partial, PART))));
  must("tar", ["-xf", "driver.tar", LIBRARY], { cwd: partial });
  for (const name of [tarball, "package", "driver.tar"])
    rmSync(join(partial, name), { recursive: true, force: true });
  renameSync(partial, made);
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  try {
    if (argv.length !== 3) throw new Error("usage: node scripts/drivers/swiftshader.mjs FOLDER");
    const folder = resolve(argv[2]);
    mkdirSync(folder, { recursive: true });
    console.log(swiftshader(folder));
  } catch (error) {
    console.error(`lowrank: SwiftShader is not there: ${error.message}`);
    process.exitCode = 1;
  }
}
