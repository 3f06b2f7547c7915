/** Adapters to files and back. */
import { LowrankError } from "../errors.js";
import { deleteAdapter, setTrainable } from "./active.js";
import { writeConfig } from "./config.js";
import { checkFinite, disposeFile, type AdapterFile } from "./formats/adapter-file.js";
import { folderOf, readFolder, writeFolder } from "./formats/folder.js";
import { injectNow, type InjectReport } from "./inject.js";
import { adapterOf, adaptersOf } from "./registry.js";
import { adapterState, fill } from "./state.js";
import type { Targetable } from "./targets.js";

/** What a model says of itself, for the configuration. */
interface Described extends Targetable {
  source?: string;
}

/**
 * Writes an adapter as PEFT does, each file whole or not at all; one not called "default" goes into a folder of its
 * name. The same adapter gives the same bytes. Throws `ERR_UNKNOWN_ADAPTER`, `ERR_WRITE`.
 */
export async function saveAdapter(model: Described, dir: string, { name = "default" } = {}): Promise<void> {
  const state = adapterState(model, name);
  const { options, targets } = adapterOf(model, name);
  const config = writeConfig(options, targets, { baseModel: model.source });
  await writeFolder(folderOf(dir, name), Object.fromEntries(state), config);
}

/**
 * Reads an adapter that PEFT or `saveAdapter` wrote. A key that matches nothing or is missing is
 * `ERR_UNMATCHED_KEY`, a wrong shape or rank `ERR_SHAPE_MISMATCH`, a value that is not finite
 * `ERR_NOT_FINITE`; the model is then as it was.
 */
export async function loadAdapter(
  model: Described,
  dir: string,
  { name = "default", trainable = false } = {},
): Promise<InjectReport> {
  if (adaptersOf(model).has(name))
    throw new LowrankError("ERR_ADAPTER_EXISTS", `loadAdapter: there is an adapter named "${name}" already`);
  const read = await readFolder(dir, name);
  try {
    await checkFinite(read.tensors, read.file);
    const trained = [...model.parameters()].filter((tensor) => tensor.requiresGrad);
    const report = injectFor(model, read, name);
    try {
      await fill(model, name, read);
    } catch (error) {
      deleteAdapter(model, name);
      for (const tensor of trained) tensor.requiresGrad = true;
      throw error;
    }
    if (!trainable) setTrainable(model, name, false);
    return report;
  } finally {
    disposeFile(read);
  }
}

/** Makes the adapter that a file describes; where nothing fits, says which model it was made for. */
function injectFor(model: Described, { options, baseModel, file }: AdapterFile, name: string): InjectReport {
  try {
    return injectNow(model, { ...options, name });
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === "ERR_NO_TARGETS")) throw error;
    const made = baseModel === undefined ? "" : `; the adapter was made for ${baseModel}`;
    throw new LowrankError(error.code, `${file}: ${error.message}${made}`, { cause: error });
  }
}
