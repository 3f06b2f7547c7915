/** Locates the model bundled with the package. */
import { resolveInPackage } from "../package/files.js";
import { resolveUnpacked } from "./archive.js";

/** The path of the model in an installation of the package, on any machine. */
const INSTALLED = /(^|[\\/])lowrank[\\/]models[\\/]default$/;

/** Returns the folder of the bundled model. */
export function locateBundledModel(): string {
  return resolveUnpacked(resolveInPackage("models/default"));
}

/** Whether `path` is the bundled model of an installation, this one or another. */
export function isBundledModel(path: string): boolean {
  return INSTALLED.test(path);
}
