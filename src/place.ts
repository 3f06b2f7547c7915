/** Where the package lies, as its own modules see it. */
import { fileURLToPath } from "node:url";

/** The path of one of the package's files. Sources and what is built of them lie in a folder of the package each. */
export function inPackage(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}
