/** Finds the base model of an adapter on this machine. */
import { existsSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";

import { isBundledModel, locateBundledModel } from "../../files/bundled-model.js";

/** The result of looking for an adapter's base model. */
export interface FoundBase {
  /** The model's folder or file; undefined if it was not found. */
  path: string | undefined;
  /** Every path that was tried, by order of trial. */
  places: string[];
}

/**
 * Finds the model that `base_model_name_or_path` of the adapter in `folder` names. An absolute path is used unchanged. A
 * relative path is resolved against the adapter's folder, then against the working directory as in PEFT. A folder below
 * the adapter's counts only if it contains a model, since the name of a hub model also looks like a relative path.
 */
export function findBaseModel(folder: string, name: string): FoundBase {
  if (isAbsolute(name)) {
    if (existsSync(name)) return { path: name, places: [name] };
    // The package may now be installed at another path than where the adapter was trained.
    return { path: isBundledModel(name) ? locateBundledModel() : undefined, places: [name] };
  }
  const [beside, here] = [resolve(folder, name), resolve(name)];
  if (isModel(beside)) return { path: beside, places: [beside] };
  const places = beside === here ? [beside] : [beside, here];
  return { path: existsSync(here) ? here : undefined, places };
}

/**
 * Returns the name under which an adapter stores its base model. A path becomes absolute, since PEFT resolves a relative
 * one against the working directory. A hub model, which has a revision, keeps its name.
 */
export function resolveBaseName(name: string | undefined, revision: string | undefined): string | undefined {
  return name !== undefined && name !== "" && revision === undefined && existsSync(name)
    ? resolve(name)
    : name;
}

function isModel(path: string): boolean {
  if (!existsSync(path)) return false;
  return statSync(path).isFile() || existsSync(join(path, "config.json"));
}
