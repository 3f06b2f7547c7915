/** Where the package lies, as its own modules see it. */
import module from "node:module";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The path of one of the package's files. Sources and what is built of them lie in a folder of the package each. */
export function inPackage(path: string): string {
  // Nothing that a bundler recognises: webpack takes along what an address beside import.meta.url or an imported
  // createRequire names, which is no code that it could read.
  return join(dirname(fileURLToPath(import.meta.url)), "..", path);
}

/** Loads one of the package's files. */
export function fromPackage(path: string): unknown {
  return module.createRequire(inPackage("package.json"))(`./${path}`);
}

/** The path of a file of this package that is run by itself, by its place in src/ and in dist/: `diagnose/child`. */
export function programPath(name: string): string {
  const own = fileURLToPath(import.meta.url);
  // Programs are modules, also beside what is required.
  return join(dirname(own), `${name}${extname(own) === ".ts" ? ".ts" : ".js"}`);
}
