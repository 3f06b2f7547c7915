/** The model and the texts bundled with the package. */
import { join } from "node:path";

import { locateBundledModel } from "../files/bundled-model.js";

/** Returns the folder of the bundled model. */
export const locateDefaultModel = locateBundledModel;
/** Returns the default training text; `locateDefaultHeldOut` returns another part of the same book. */
export const locateDefaultData = (): string => join(locateDefaultModel(), "moby-dick.txt");
export const locateDefaultHeldOut = (): string => join(locateDefaultModel(), "moby-dick-held-out.txt");
/** Returns the file of `lowrank finetune` options for both, in the format of `--config`. */
export const locateDefaultRecipe = (): string => join(locateDefaultModel(), "finetune.yaml");
