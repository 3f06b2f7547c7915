/** Where a model lies: in a folder or a file of the user's, or in the cache of what came from a hub. */
import { existsSync } from "node:fs";

import { LowrankError } from "../errors.js";
import { hubName } from "../hub/name.js";
import type { HubOptions } from "../hub/settings.js";
import { MODEL_REFUSALS } from "../refusals/models.js";
import { refused } from "../refusals/refusal.js";

/** A model on this machine. */
export interface Located {
  /** Its folder, or its file. */
  path: string;
  /** What it is called: the path, or its name at the hub. */
  source: string;
  /** The commit at the hub; undefined for what is the user's own. */
  revision: string | undefined;
}

/**
 * Finds a model; what is there by that path goes first, and what looks like `owner/name` is a hub's, from where it is
 * fetched unless the cache has it.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_OPTION` for a revision of a folder; for a hub's what `hubSnapshot` throws.
 */
export async function locate(path: string, options: HubOptions): Promise<Located> {
  const there = existsSync(path);
  const name = there ? undefined : hubName(path);
  if (name !== undefined) {
    const { hubSnapshot } = await import("../hub/snapshot.js");
    const { folder, commit } = await hubSnapshot(name, options);
    return { path: folder, source: name.repo, revision: commit };
  }
  if (!there) throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: there is no such model folder or file`);
  if (options.revision !== undefined) throw refused(MODEL_REFUSALS.revisionOfFolder, path, options.revision);
  return { path, source: path, revision: undefined };
}
