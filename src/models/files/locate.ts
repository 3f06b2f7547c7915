/** Locates a model: a local folder or file, or a hub model in the cache. */
import { existsSync } from "node:fs";

import { LowrankError } from "../../errors.js";
import { parseHubName } from "../../hub/name.js";
import type { HubOptions } from "../../hub/settings.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { createRefusal } from "../../refusals/refusal.js";

/** A model on the local disk. */
export interface Located {
  /** Its folder or file. */
  path: string;
  /** Its name: the path, or the name at the hub. */
  source: string;
  /** The commit at the hub; undefined for a local model. */
  revision: string | undefined;
}

/**
 * Locates a model. An existing local path takes precedence; otherwise a name such as `owner/name` is a hub model, which
 * is downloaded unless the cache has it.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_OPTION` for a revision of a local path; for a hub model as `hubSnapshot` does.
 */
export async function locate(path: string, options: HubOptions): Promise<Located> {
  const exists = existsSync(path);
  const name = exists ? undefined : parseHubName(path);
  if (name !== undefined) {
    const { fetchSnapshot: hubSnapshot } = await import("../../hub/snapshot.js");
    const { folder, commit } = await hubSnapshot(name, options);
    return { path: folder, source: name.repo, revision: commit };
  }
  if (!exists) throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: there is no such model folder or file`);
  if (options.revision !== undefined)
    throw createRefusal(MODEL_REFUSALS.revisionOfFolder, path, options.revision);
  return { path, source: path, revision: undefined };
}
