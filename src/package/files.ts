/** Locates files of this package. */
import module from "node:module";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * Returns the folder of the sources (src/), or of the build (dist/), whose chunks have no subfolders; both are in the
 * package. Evaluated when it is called: in a bundle of CommonJS, `import.meta.url` is undefined.
 */
function locateCode(): { folder: string; extension: ".ts" | ".js" } {
  // Written so that bundlers do not recognise it: webpack would include the files that import.meta.url or an imported
  // createRequire names, which it cannot parse.
  const modulePath = fileURLToPath(import.meta.url);
  return extname(modulePath) === ".ts"
    ? { folder: join(dirname(modulePath), ".."), extension: ".ts" }
    : { folder: dirname(modulePath), extension: ".js" };
}

/** Returns the path of a file of the package. */
export function resolveInPackage(path: string): string {
  return join(locateCode().folder, "..", path);
}

/** Requires a file of the package. */
export function requireFromPackage(path: string): unknown {
  return module.createRequire(resolveInPackage("package.json"))(`./${path}`);
}

/** Returns the path of a script of this package by its name in src/ and dist/, such as `diagnose/child`. */
export function resolveProgram(name: string): string {
  // Scripts are ES modules even if this file was built as CommonJS.
  const { folder, extension } = locateCode();
  return join(folder, `${name}${extension}`);
}
