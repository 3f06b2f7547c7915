/** Provides a hub's model as a folder, from the cache or by a download. */
import { optionName } from "../arguments/option-name.js";
import { existsSync } from "node:fs";
import { join } from "node:path";

import { LowrankError, throwIfAborted } from "../errors.js";
import { CachedRepo, INDEX, listShards } from "./cache.js";
import { download } from "./download.js";
import { convertWriteError, Passing, createHubError } from "./failures.js";
import { requestListing, listNeededFiles, type HubFile, type Listing } from "./listing.js";
import { checkRevision, isCommit, type HubName } from "./name.js";
import { resolveHubSettings, type HubOptions, type HubSettings } from "./settings.js";

/** A hub's model on this machine. */
export interface Snapshot {
  /** The model's folder. */
  folder: string;
  /** The model's commit. */
  commit: string;
}

/**
 * Returns the folder of a model, after downloading the files that the cache lacks. A complete commit in the cache is used
 * without a request. If the hub is unavailable, the cache is used, and a notice says so.
 *
 * Throws `ERR_HUB`, `ERR_FILE_FORMAT` for a repository without a model that can be loaded, `ERR_WRITE`, `ERR_OPTION`;
 * the signal's reason.
 */
export async function fetchSnapshot(
  name: HubName,
  options: HubOptions = {},
  env: NodeJS.ProcessEnv = process.env,
): Promise<Snapshot> {
  const settings = resolveHubSettings(options, env);
  throwIfAborted(settings.signal);
  const { repo } = name;
  const revision = resolveRevision(name, options);
  const cached = new CachedRepo(settings.cacheDir, repo);
  const commit = cached.readCommit(revision);
  const lacks = commit === undefined ? undefined : await cached.findMissing(commit);
  const existing =
    commit === undefined || lacks !== undefined
      ? undefined
      : { folder: cached.locateSnapshot(commit), commit };
  if (settings.offline) return existing ?? createNotThereError(settings, cached, revision, lacks);
  // Other programs may have downloaded only the files that they need.
  if (existing !== undefined && isCommit(revision) && existsSync(join(existing.folder, "tokenizer.json")))
    return existing;
  let found: Listing;
  try {
    found = await requestListing(settings, { repo, revision });
  } catch (error) {
    if (!(error instanceof Passing)) throw error;
    if (existing === undefined) throw createHubError(repo, error);
    settings.onNotice(
      `${repo}: ${error.message}; taking commit ${existing.commit.slice(0, 7)}, which is in the cache`,
    );
    return existing;
  }
  try {
    await downloadFiles(settings, cached, found);
    await cached.writeRef(revision, found.commit);
  } catch (error) {
    if (error instanceof Passing) throw createHubError(repo, error);
    throw settings.signal?.aborted ? error : convertWriteError(cached.folder, error);
  }
  return { folder: cached.locateSnapshot(found.commit), commit: found.commit };
}

/** Throws `ERR_OPTION` if the name and the option give different revisions. */
function resolveRevision({ repo, revision }: HubName, options: HubOptions): string | undefined {
  if (options.revision === undefined) return revision;
  if (revision !== undefined && revision !== options.revision)
    throw new LowrankError(
      "ERR_OPTION",
      `${repo}@${revision}: revision is ${options.revision}, which contradicts the name; give one of them`,
    );
  return checkRevision(repo, options.revision);
}

function createNotThereError(
  { cacheDir }: HubSettings,
  { repo }: CachedRepo,
  revision: string | undefined,
  lacks: string | undefined,
): never {
  const which = revision === undefined ? repo : `${repo}@${revision}`;
  const what = lacks === undefined ? "is not in the cache" : `is in the cache without ${lacks}`;
  throw new LowrankError(
    "ERR_HUB",
    `${which}: ${what} (${cacheDir}), and offline mode uses no server; download it once without ${optionName("offline")} and HF_HUB_OFFLINE`,
  );
}

/** Downloads all files that a snapshot needs. */
async function downloadFiles(settings: HubSettings, cached: CachedRepo, found: Listing): Promise<void> {
  const { repo } = cached;
  const { commit, files } = found;
  const downloadFile = async (file: HubFile, arrived: (bytes: number) => void): Promise<void> => {
    if (cached.has(commit, file)) return;
    await download(settings, cached, commit, file, arrived);
    await cached.addBlob(file.etag, commit, file.name, settings.ways);
  };
  const all = listNeededFiles(repo, found);
  const index = all.find(({ name }) => name === INDEX);
  if (index !== undefined) {
    await downloadFile(index, () => {});
    for (const shard of await listShards(repo, join(cached.locateSnapshot(commit), INDEX))) {
      const file = files.get(shard);
      if (file === undefined)
        throw new LowrankError("ERR_FILE_FORMAT", `${repo}: ${INDEX} names ${shard}, which is not there`);
      all.push(file);
    }
  }
  const missing = all.filter(
    (file) => !cached.has(commit, file) && !existsSync(cached.locateBlob(file.etag)),
  );
  const bytes = missing.reduce((sum, { size }) => sum + size, 0);
  let before = 0;
  for (const file of all) {
    const tell = missing.includes(file) ? createProgress(settings, repo, file.name, before, bytes) : () => {};
    await downloadFile(file, tell);
    if (missing.includes(file)) before += file.size;
  }
}

/** The minimum milliseconds between two reports of progress. */
const TELL_MS = 100;

function createProgress(
  { onProgress }: HubSettings,
  model: string,
  file: string,
  before: number,
  bytes: number,
): (read: number) => void {
  let last = -Infinity;
  return (read) => {
    const now = performance.now();
    if (now - last < TELL_MS && before + read < bytes) return;
    last = now;
    onProgress({ model, file, bytesRead: before + read, bytes });
  };
}
