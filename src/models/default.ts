/** The model and the text that come with the package. */
import { join } from "node:path";

import { inPackage } from "../place.js";

import { unpacked } from "../archive.js";

/** The embedded model's folder. */
export const defaultModel = (): string => unpacked(inPackage("models/default"));
/** The text that it adapts to where none is named, and another part of the same book. */
export const defaultData = (): string => join(defaultModel(), "moby-dick.txt");
export const defaultHeldOut = (): string => join(defaultModel(), "moby-dick-held-out.txt");
/** Options of `lowrank finetune` for the two, as a `--config` file. */
export const defaultRecipe = (): string => join(defaultModel(), "finetune.yaml");
