/** The model and the text that come with the package. */
import { join } from "node:path";

import { inPackage } from "../place.js";

/** Native code cannot open what lies inside an Electron archive: there, it is unpacked beside it. */
export function unpacked(path: string): string {
  return path.replace(/\.asar(?=[\\/])/, ".asar.unpacked");
}

/** The embedded model's folder. */
export const defaultModel = (): string => unpacked(inPackage("models/default"));
/** The text that it adapts to where none is named, and another part of the same book. */
export const defaultData = (): string => join(defaultModel(), "moby-dick.txt");
export const defaultHeldOut = (): string => join(defaultModel(), "moby-dick-held-out.txt");
/** Options of `lowrank finetune` for the two, as a `--config` file. */
export const defaultRecipe = (): string => join(defaultModel(), "finetune.yaml");
