/** Finds the base model of an adapter on this machine. */
import { existsSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";

import { unpacked } from "../../archive.js";
import { inPackage } from "../../place.js";

/** Where the base model of an adapter was looked for. */
export interface FoundBase {
  /** The model's folder or file; undefined where none of the places has it. */
  path: string | undefined;
  /** Every path that was tried, in this order. */
  places: string[];
}

/** The path of the embedded model in an installation of the package, on any machine. */
const EMBEDDED = /(^|[\\/])lowrank[\\/]models[\\/]default$/;

/**
 * Looks for the model that `base_model_name_or_path` of the adapter in `folder` names: an absolute path as it is; a
 * relative one below the adapter's folder, then below the working directory, where PEFT looks. A folder below the
 * adapter's counts only if it holds a model, since a name at a hub looks like a relative path, too.
 */
export function findBaseModel(folder: string, name: string): FoundBase {
  if (isAbsolute(name)) {
    if (existsSync(name)) return { path: name, places: [name] };
    // The package may be installed elsewhere than where the adapter was trained.
    return { path: EMBEDDED.test(name) ? unpacked(inPackage("models/default")) : undefined, places: [name] };
  }
  const [beside, here] = [resolve(folder, name), resolve(name)];
  if (isModel(beside)) return { path: beside, places: [beside] };
  const places = beside === here ? [beside] : [beside, here];
  return { path: existsSync(here) ? here : undefined, places };
}

/**
 * The name of a base model as an adapter stores it. A path is made absolute, since PEFT resolves a relative one against
 * the working directory; a model of a hub, which has a revision, keeps its name.
 */
export function storedBaseName(name: string | undefined, revision: string | undefined): string | undefined {
  return name !== undefined && name !== "" && revision === undefined && existsSync(name)
    ? resolve(name)
    : name;
}

function isModel(path: string): boolean {
  if (!existsSync(path)) return false;
  return statSync(path).isFile() || existsSync(join(path, "config.json"));
}
