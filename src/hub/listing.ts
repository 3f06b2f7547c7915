/** Resolves a revision to a commit, and lists the files that a model needs. */
import { listFiles, modelInfo } from "@huggingface/hub";

import { LowrankError } from "../errors.js";
import { CONFIG, INDEX, WEIGHTS } from "./cache.js";
import { Passing } from "./failures.js";
import { ask, convertBodyError, retryPersistently, type RequestedModel } from "./request.js";
import type { HubSettings } from "./settings.js";

/** A file in the hub's listing. */
export interface HubFile {
  name: string;
  size: number;
  /** Its name in the cache and its hash: SHA-256 in hexadecimal, or git's SHA-1 for a small file. */
  etag: string;
}

/** A model's files at a commit. */
export interface Listing {
  commit: string;
  files: ReadonlyMap<string, HubFile>;
}

/** The files of a model in addition to its weights; all but the configuration are optional. */
const COMPANIONS = [
  CONFIG,
  "generation_config.json",
  "preprocessor_config.json",
  "processor_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
];

/** Requests the listing from the hub. Throws `ERR_HUB`, `Passing`. */
export async function requestListing(settings: HubSettings, requested: RequestedModel): Promise<Listing> {
  const { repo, revision } = requested;
  const fetchPersistently: typeof fetch = (url, init) =>
    retryPersistently(settings, async () => {
      const { response, done } = await ask(
        settings,
        requested,
        String(url),
        Object.fromEntries(new Headers(init?.headers)),
      );
      try {
        // The body is read here, so that a retry covers it.
        return new Response(await response.arrayBuffer(), { headers: response.headers });
      } catch (error) {
        throw convertBodyError(settings, error);
      } finally {
        done();
      }
    });
  const found = { hubUrl: settings.endpoint, fetch: fetchPersistently };
  try {
    const { sha } = await modelInfo({
      ...found,
      name: repo,
      additionalFields: ["sha"],
      ...(revision !== undefined && { revision }),
    });
    const commit = checkHexadecimal(sha, 40);
    const files = new Map<string, HubFile>();
    for await (const { type, path, size, oid, lfs } of listFiles({ ...found, repo, revision: commit })) {
      if (type !== "file") continue;
      const etag = lfs === undefined ? checkHexadecimal(oid, 40) : checkHexadecimal(lfs.oid, 64);
      if (!Number.isSafeInteger(size) || typeof path !== "string")
        throw new TypeError("a file without a size");
      files.set(path, { name: path, size, etag });
    }
    return { commit, files };
  } catch (error) {
    if (error instanceof LowrankError || error instanceof Passing || settings.signal?.aborted) throw error;
    const what = "does not respond like a hub; check HF_ENDPOINT";
    throw new LowrankError("ERR_HUB", `${repo}: ${settings.endpoint} ${what}`, { cause: error });
  }
}

/** Validates a hash, because it becomes a file name. */
function checkHexadecimal(value: unknown, length: number): string {
  if (typeof value === "string" && value.length === length && /^[0-9a-f]+$/.test(value)) return value;
  throw new TypeError("no hash");
}

/**
 * Returns the files that loading a model needs, except for shards. Throws `ERR_FILE_FORMAT` for a repository without a
 * model in safetensors.
 */
export function listNeededFiles(repo: string, { files }: Listing): HubFile[] {
  const refuse = (what: string): never => {
    throw new LowrankError("ERR_FILE_FORMAT", `${repo}: ${what}`);
  };
  if (!files.has(CONFIG)) {
    refuse(
      files.has("adapter_config.json")
        ? "is an adapter, not a model: name its base model"
        : "has no config.json, so that it cannot be loaded as a model",
    );
  }
  const weights = files.get(WEIGHTS) ?? files.get(INDEX);
  if (weights === undefined) {
    const other = [...files.keys()].find((name) => /\.(bin|h5|msgpack|gguf|pth|pt|onnx)$/.test(name));
    refuse(
      other === undefined
        ? "has no model.safetensors"
        : `has no model.safetensors, only ${other}, which is not read; look for a conversion to safetensors (` +
            `the hub's own is often revision refs/pr/1)`,
    );
  }
  const companions = COMPANIONS.map((name) => files.get(name)).filter((file) => file !== undefined);
  return [...companions, weights as HubFile];
}
