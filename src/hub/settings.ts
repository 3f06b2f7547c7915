/** The hub's address, token and cache folder, from options or from the environment variables of huggingface_hub. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";

import { LowrankError } from "../errors.js";
import { type Pointing, listWaysToPoint } from "./cache.js";

/** The progress of a download. */
export interface DownloadProgress {
  /** The model's name at the hub. */
  model: string;
  /** The current file. */
  file: string;
  /** Bytes received so far of all files, including those that an earlier download received. */
  bytesRead: number;
  /** Bytes of all files to download. */
  bytes: number;
}

/** The options for downloading a model from a hub. */
export interface HubOptions {
  /** A branch, a tag or a commit, instead of `@revision` in the name. */
  revision?: string | undefined;
  /** The user's access token; by default `HF_TOKEN`, or the token that `hf auth login` has stored. */
  token?: string | undefined;
  /** Use only the cache, without network access; by default as `HF_HUB_OFFLINE` says. */
  offline?: boolean | undefined;
  /** The folder of the cache; by default `HF_HUB_CACHE`, or `hub` in `HF_HOME`. */
  cacheDir?: string | undefined;
  /** Aborts the download with the signal's reason. Received bytes are kept, and the next download continues from them. */
  signal?: AbortSignal | undefined;
  /** Called with the progress of a download, about ten times a second. */
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Called with a message if the hub is unavailable and the cache is used instead. */
  onNotice?: ((text: string) => void) | undefined;
}

/** The complete settings. */
export interface HubSettings {
  /** The hub's address, without a trailing slash. */
  endpoint: string;
  token: string | undefined;
  offline: boolean;
  cacheDir: string;
  /** The ways to link a snapshot's file to its blob. */
  ways: readonly Pointing[];
  /** Milliseconds without a response, or without a byte of it, after which a request fails. */
  timeout: number;
  signal: AbortSignal | undefined;
  onProgress: (progress: DownloadProgress) => void;
  onNotice: (text: string) => void;
}

/** Throws `ERR_OPTION` for an invalid address or token. */
export function resolveHubSettings(options: HubOptions, env: NodeJS.ProcessEnv = process.env): HubSettings {
  const home = resolveFolder(
    env["HF_HOME"] || join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "huggingface"),
  );
  const cache =
    options.cacheDir ?? (env["HF_HUB_CACHE"] || env["HUGGINGFACE_HUB_CACHE"] || join(home, "hub"));
  const offline = options.offline ?? isTrue(env["HF_HUB_OFFLINE"] || env["TRANSFORMERS_OFFLINE"]);
  return {
    endpoint: parseEndpoint(env["HF_ENDPOINT"] || "https://huggingface.co"),
    token: checkToken(options.token ?? readOwnToken(env, home)),
    offline,
    cacheDir: resolveFolder(cache),
    ways: listWaysToPoint(isTrue(env["HF_HUB_DISABLE_SYMLINKS"])),
    timeout: 1000 * (Number(env["HF_HUB_DOWNLOAD_TIMEOUT"]) || 10),
    signal: options.signal,
    onProgress: options.onProgress ?? (() => {}),
    onNotice: options.onNotice ?? ((text) => process.emitWarning(text)),
  };
}

function isTrue(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes(value?.toUpperCase() ?? "");
}

/** Returns the absolute path of a folder; `~` is the user's home. */
function resolveFolder(path: string): string {
  return resolve(path.replace(/^~(?=$|[\\/])/, () => homedir()));
}

function parseEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "https:" || url?.protocol === "http:") return text.replace(/\/+$/, "");
  throw new LowrankError(
    "ERR_OPTION",
    `HF_ENDPOINT must be the address of a hub, got ${JSON.stringify(text)}`,
  );
}

function readOwnToken(env: NodeJS.ProcessEnv, home: string): string | undefined {
  if (isTrue(env["HF_HUB_DISABLE_IMPLICIT_TOKEN"])) return undefined;
  const given = env["HF_TOKEN"] || env["HUGGING_FACE_HUB_TOKEN"];
  if (given !== undefined && given !== "") return given;
  try {
    return readFileSync(resolveFolder(env["HF_TOKEN_PATH"] || join(home, "token")), "utf8");
  } catch {
    // Most users have no token.
    return undefined;
  }
}

/** Validates a token. The error does not contain it, because it is a secret. */
function checkToken(token: string | undefined): string | undefined {
  const bare = token?.trim();
  if (bare === undefined || bare === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(bare)) return bare;
  throw new LowrankError("ERR_OPTION", "the token for the hub contains a space or another invalid character");
}
