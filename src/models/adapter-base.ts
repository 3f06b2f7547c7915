/** Finds the base model that an adapter folder names. */
import { existsSync } from "node:fs";
import { join } from "node:path";

import { LowrankError } from "../errors.js";
import { parseHubName } from "../hub/name.js";
import { findBaseModel } from "../lora/formats/base-model.js";
import { readConfigFields } from "./config-fields.js";

/** The base model of an adapter. */
export interface AdapterBase {
  /** `base_model_name_or_path` of `adapter_config.json`; undefined where it is missing or empty. */
  name: string | undefined;
  /** The argument for `loadModel`, a local path or a hub name; undefined where the name is neither. */
  model: string | undefined;
  /** The commit of a hub model. */
  revision: string | undefined;
  /** The local paths that were tried. */
  places: string[];
}

/**
 * Finds the base model of the adapter in `folder`. Tries an absolute path, a path relative to the folder, a path
 * relative to the working directory, then a hub name.
 *
 * Throws `ERR_FILE_NOT_FOUND` for a folder without `adapter_config.json`, `ERR_FILE_FORMAT`.
 */
export function findBaseOfAdapter(folder: string): AdapterBase {
  const config = readConfigFields(join(folder, "adapter_config.json"));
  if (config === undefined) {
    const what = existsSync(folder) ? "the folder has no adapter_config.json" : "no such adapter";
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: ${what}`);
  }
  const name = config.readString("base_model_name_or_path");
  if (name === undefined || name === "")
    return { name: undefined, model: undefined, revision: undefined, places: [] };
  const { path, places } = findBaseModel(folder, name);
  if (path !== undefined) return { name, model: path, revision: undefined, places };
  if (parseHubName(name) === undefined) return { name, model: undefined, revision: undefined, places };
  return { name, model: name, revision: config.readString("revision"), places };
}
