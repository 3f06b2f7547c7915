import { readFileSync } from "node:fs";

import { resolveInPackage } from "./files.js";

/** Returns this package's version. */
export function readVersion(): string {
  return (JSON.parse(readFileSync(resolveInPackage("package.json"), "utf8")) as { version: string }).version;
}
