/** Locates files of this package. */
import module from "node:module";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Returns the path of a file of the package. Both src/ and dist/ are direct subfolders of the package. */
export function inPackage(path: string): string {
  // Written so that bundlers do not recognise it: webpack would include the files that import.meta.url or an imported
  // createRequire names, which it cannot parse.
  return join(dirname(fileURLToPath(import.meta.url)), "..", path);
}

/** Requires a file of the package. */
export function fromPackage(path: string): unknown {
  return module.createRequire(inPackage("package.json"))(`./${path}`);
}

/** Returns the path of a script of this package by its name in src/ and dist/, such as `diagnose/child`. */
export function programPath(name: string): string {
  const own = fileURLToPath(import.meta.url);
  // Scripts are ES modules even if this file was built as CommonJS.
  return join(dirname(own), `${name}${extname(own) === ".ts" ? ".ts" : ".js"}`);
}
