/** How a model at a hub is called: `owner/name`, or `owner/name@revision`. */
import { LowrankError } from "../errors.js";

/** A model at a hub. */
export interface HubName {
  /** `owner/name`. */
  repo: string;
  /** A branch, a tag or a commit; undefined for what the hub gives by default. */
  revision: string | undefined;
}

/** The branch that is meant where none is named. */
export const DEFAULT_REVISION = "main";

/** Files are no models of a hub, however they are called. */
const FILE = /\.(safetensors|gguf|json|bin|pt|pth|onnx|ckpt)$/i;

/**
 * The model that `text` names; undefined where it can be a path alone. Nothing is looked up. Throws `ERR_OPTION` for a
 * revision that git would not take.
 */
export function hubName(text: string): HubName | undefined {
  const at = text.indexOf("@");
  const repo = at === -1 ? text : text.slice(0, at);
  if (repo.length > 96 || !/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9_][\w.-]*$/.test(repo)) return undefined;
  if (/--|\.\.|[.-]$|[.-]\/|\.git$/.test(repo) || FILE.test(repo)) return undefined;
  return { repo, revision: at === -1 ? undefined : checkedRevision(text, text.slice(at + 1)) };
}

/**
 * A revision whose name may be part of a path and of an address. Throws `ERR_OPTION`.
 */
export function checkedRevision(where: string, revision: string): string {
  const parts = revision.split("/");
  if (parts.every((part) => /^[\w+-][\w.+-]*$/.test(part) && !/\.\.|\.$|\.lock$/.test(part))) return revision;
  throw new LowrankError(
    "ERR_OPTION",
    `${where}: ${JSON.stringify(revision)} is no revision: give the name of a branch or a tag, or a commit`,
  );
}

/** Whether a revision is a commit itself, which never changes. */
export function isCommit(revision: string | undefined): revision is string {
  return revision !== undefined && /^[0-9a-f]{40}$/.test(revision);
}
