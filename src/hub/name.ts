/** Names of models at a hub: `owner/name`, or `owner/name@revision`. */
import { LowrankError } from "../errors.js";

/** A model at a hub. */
export interface HubName {
  /** `owner/name`. */
  repo: string;
  /** A branch, a tag or a commit; undefined for the hub's default. */
  revision: string | undefined;
}

/** The default branch. */
export const DEFAULT_REVISION = "main";

/** File names, which never denote a model at a hub. */
const FILE = /\.(safetensors|gguf|json|bin|pt|pth|onnx|ckpt)$/i;

/**
 * Parses a model's name; undefined for text that can only be a path. No lookup takes place. Throws `ERR_OPTION` for a
 * revision that git does not allow.
 */
export function parseHubName(text: string): HubName | undefined {
  const index = text.indexOf("@");
  const repo = index === -1 ? text : text.slice(0, index);
  if (repo.length > 96 || !/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9_][\w.-]*$/.test(repo)) return undefined;
  if (/--|\.\.|[.-]$|[.-]\/|\.git$/.test(repo) || FILE.test(repo)) return undefined;
  return { repo, revision: index === -1 ? undefined : checkRevision(text, text.slice(index + 1)) };
}

/** Validates a revision for use in paths and URLs. Throws `ERR_OPTION`. */
export function checkRevision(where: string, revision: string): string {
  const parts = revision.split("/");
  if (parts.every((part) => /^[\w+-][\w.+-]*$/.test(part) && !/\.\.|\.$|\.lock$/.test(part))) return revision;
  throw new LowrankError(
    "ERR_OPTION",
    `${where}: ${JSON.stringify(revision)} is not a revision: give the name of a branch or a tag, or a commit`,
  );
}

/** Whether a revision is a full commit hash, which never changes. */
export function isCommit(revision: string | undefined): revision is string {
  return revision !== undefined && /^[0-9a-f]{40}$/.test(revision);
}
