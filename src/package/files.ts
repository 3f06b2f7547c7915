/** Locates files of this package. */
import module from "node:module";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

// Written so that bundlers do not recognise it: webpack would include the files that import.meta.url or an imported
// createRequire names, which it cannot parse.
const own = fileURLToPath(import.meta.url);
const isSource = extname(own) === ".ts";

/** The folder of the sources (src/), or of the build (dist/), whose chunks have no subfolders. Both are in the package. */
const code = isSource ? join(dirname(own), "..") : dirname(own);

/** Returns the path of a file of the package. */
export function resolveInPackage(path: string): string {
  return join(code, "..", path);
}

/** Requires a file of the package. */
export function requireFromPackage(path: string): unknown {
  return module.createRequire(resolveInPackage("package.json"))(`./${path}`);
}

/** Returns the path of a script of this package by its name in src/ and dist/, such as `diagnose/child`. */
export function resolveProgram(name: string): string {
  // Scripts are ES modules even if this file was built as CommonJS.
  return join(code, `${name}${isSource ? ".ts" : ".js"}`);
}
