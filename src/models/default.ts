/** The model and the text that come with the package. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Native code cannot open what lies inside an Electron archive: there, it is unpacked beside it. */
export function unpacked(path: string): string {
  return path.replace(/\.asar(?=[\\/])/, ".asar.unpacked");
}

const folder = unpacked(fileURLToPath(new URL("../../models/default", import.meta.url)));

/** The embedded model's folder. */
export const defaultModel = folder;
/** The text that it adapts to where none is named, and another part of the same book. */
export const defaultData = join(folder, "moby-dick.txt");
export const defaultHeldOut = join(folder, "moby-dick-held-out.txt");
/** Options of `lowrank finetune` for the two, as a `--config` file. */
export const defaultRecipe = join(folder, "finetune.yaml");
