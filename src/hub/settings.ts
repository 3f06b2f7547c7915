/** Where the hub is, who asks and where the cache lies: by options, or by the environment as huggingface_hub reads it. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";

import { LowrankError } from "../errors.js";
import { type Pointing, waysToPoint } from "./cache.js";

/** How far a download has come. */
export interface DownloadProgress {
  /** The model's name at the hub. */
  model: string;
  /** The file that is fetched. */
  file: string;
  /** Bytes so far of all files that are fetched, those that an earlier download had fetched among them. */
  bytesRead: number;
  /** Bytes of them all. */
  bytes: number;
}

/** What a model of a hub is fetched with. */
export interface HubOptions {
  /** A branch, a tag or a commit, in place of `@revision` of the name. */
  revision?: string | undefined;
  /** What the hub knows the user by; `HF_TOKEN`, or what `hf auth login` has stored, unless given. */
  token?: string | undefined;
  /** Take what is in the cache and ask no server; as `HF_HUB_OFFLINE` says unless given. */
  offline?: boolean | undefined;
  /** The cache's folder; `HF_HUB_CACHE`, or `hub` in `HF_HOME`, unless given. */
  cacheDir?: string | undefined;
  /** Ends it with its reason. What was fetched stays, and the next time goes on from there. */
  signal?: AbortSignal | undefined;
  /** Told of how far a download has come, about ten times a second. */
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Told where the hub cannot be asked and the cache is used instead. */
  onNotice?: ((text: string) => void) | undefined;
}

/** The same with everything settled. */
export interface HubSettings {
  /** The hub's address, without a slash at its end. */
  endpoint: string;
  token: string | undefined;
  offline: boolean;
  cacheDir: string;
  /** How a file of a snapshot is made of its blob. */
  ways: readonly Pointing[];
  /** Milliseconds without an answer, or without a byte of one. */
  timeout: number;
  signal: AbortSignal | undefined;
  onProgress: (progress: DownloadProgress) => void;
  onNotice: (text: string) => void;
}

/** Throws `ERR_OPTION` for an address or a token that is none. */
export function hubSettings(options: HubOptions, env: NodeJS.ProcessEnv = process.env): HubSettings {
  const home = folder(
    env["HF_HOME"] || join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "huggingface"),
  );
  const cache =
    options.cacheDir ?? (env["HF_HUB_CACHE"] || env["HUGGINGFACE_HUB_CACHE"] || join(home, "hub"));
  const offline = options.offline ?? isTrue(env["HF_HUB_OFFLINE"] || env["TRANSFORMERS_OFFLINE"]);
  return {
    endpoint: endpointOf(env["HF_ENDPOINT"] || "https://huggingface.co"),
    token: checkedToken(options.token ?? ownToken(env, home)),
    offline,
    cacheDir: folder(cache),
    ways: waysToPoint(isTrue(env["HF_HUB_DISABLE_SYMLINKS"])),
    timeout: 1000 * (Number(env["HF_HUB_DOWNLOAD_TIMEOUT"]) || 10),
    signal: options.signal,
    onProgress: options.onProgress ?? (() => {}),
    onNotice: options.onNotice ?? ((text) => process.emitWarning(text)),
  };
}

function isTrue(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes(value?.toUpperCase() ?? "");
}

/** A folder's whole path; `~` is the user's own. */
function folder(path: string): string {
  return resolve(path.replace(/^~(?=$|[\\/])/, () => homedir()));
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "https:" || url?.protocol === "http:") return text.replace(/\/+$/, "");
  throw new LowrankError("ERR_OPTION", `HF_ENDPOINT is the address of a hub, not ${JSON.stringify(text)}`);
}

function ownToken(env: NodeJS.ProcessEnv, home: string): string | undefined {
  if (isTrue(env["HF_HUB_DISABLE_IMPLICIT_TOKEN"])) return undefined;
  const given = env["HF_TOKEN"] || env["HUGGING_FACE_HUB_TOKEN"];
  if (given !== undefined && given !== "") return given;
  try {
    return readFileSync(folder(env["HF_TOKEN_PATH"] || join(home, "token")), "utf8");
  } catch {
    // Most have none.
    return undefined;
  }
}

/** Never shown: it is a secret. */
function checkedToken(token: string | undefined): string | undefined {
  const bare = token?.trim();
  if (bare === undefined || bare === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(bare)) return bare;
  throw new LowrankError(
    "ERR_OPTION",
    "the token for the hub holds a space or another character that none has",
  );
}
