/** Errors of the hub and of the connection: one-line messages, and which of them are temporary. */
import { LowrankError, readSystemCode } from "../errors.js";
import type { HubSettings } from "./settings.js";

/** A temporary failure, after which a retry may succeed. Never leaves this folder. */
export class Passing extends Error {
  constructor(
    message: string,
    /** Seconds to wait before a retry, as the server requests. */
    readonly after: number | undefined = undefined,
    /** Whether no server responded at all. */
    readonly unreachable = false,
  ) {
    super(message);
  }
}

/** Converts a temporary failure to an error after the last retry. */
export function createHubError(repo: string, { message, unreachable }: Passing): LowrankError {
  const advice = unreachable
    ? "check the connection, or name a folder; there is no folder of that name here"
    : "try again later; the received part is kept";
  return new LowrankError("ERR_HUB", `${repo}: ${message}; ${advice}`);
}

/** Describes a failed connection, before the response (`answered` is false) or during it. */
export function describeConnectionFailure(error: unknown, endpoint: string, answered: boolean): Passing {
  let cause = error;
  while (cause instanceof Error && readSystemCode(cause) === undefined && cause.cause !== undefined)
    cause = cause.cause;
  // A name with several addresses fails with several errors.
  const first = cause instanceof AggregateError ? cause.errors[0] : cause;
  const code =
    readSystemCode(first) ??
    readSystemCode(cause) ??
    (error instanceof Error ? error.message : String(error));
  const cut = answered || ["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"].includes(code);
  return cut
    ? new Passing(`the connection to ${endpoint} was cut (${code})`)
    : new Passing(`${endpoint} cannot be reached (${code})`, undefined, true);
}

/** Converts an unsuccessful response to an error about the model, or to a temporary failure. */
export function convertFailure(
  { endpoint, token }: HubSettings,
  repo: string,
  revision: string | undefined,
  response: Response,
): LowrankError | Passing {
  const { status, headers } = response;
  const code = headers.get("x-error-code");
  const hub = (text: string): LowrankError =>
    new LowrankError("ERR_HUB", `${repo}: ${text} (status ${status})`);
  const page = `${endpoint}/${repo}`;
  if (status === 429 || status === 408 || status >= 500) {
    const what = status === 429 ? "received too many requests" : "reports an internal error";
    return new Passing(`${endpoint} ${what} (status ${status})`, parseSeconds(headers.get("retry-after")));
  }
  if (code === "GatedRepo" || (status === 403 && code === null)) {
    const whose = token === undefined ? "then set HF_TOKEN to your token" : "with the account of the token";
    return hub(`it is gated: request access at ${page}, ${whose}`);
  }
  if (code === "RevisionNotFound")
    return hub(`it has no revision ${revision ?? "main"}; see ${page}/commits`);
  if (code === "DisabledRepo") return hub(`it has been disabled; see ${page}`);
  if (status === 401 && token !== undefined && code !== "RepoNotFound")
    return hub("the token was rejected: it is wrong or has expired; set another in HF_TOKEN");
  if (status === 401)
    return hub(
      token === undefined
        ? `there is no such public model at ${endpoint}, and no folder of that name here; a private one needs a token: set it in HF_TOKEN`
        : `there is no such model at ${endpoint} that the token may read, and no folder of that name here`,
    );
  if (status === 404 && code === "EntryNotFound")
    return hub(`a file in its listing is missing; see ${page}/tree/main`);
  if (status === 404) return hub(`there is no such model at ${endpoint}, and no folder of that name here`);
  return hub(`${endpoint} refused the request`);
}

/** Parses `Retry-After`, seconds or a date, to seconds. */
function parseSeconds(value: string | null): number | undefined {
  if (value === null) return undefined;
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

/** Error codes of a full disk or an exhausted quota. */
const FULL = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

/** Converts a system error of writing into the cache. */
export function convertWriteError(path: string, error: unknown): unknown {
  const code = readSystemCode(error);
  if (code === undefined || error instanceof LowrankError) return error;
  const advice = FULL.has(code)
    ? "free space, or move the cache with HF_HOME; the received part is kept, and the next download continues from there"
    : "check its permissions, or move the cache with HF_HOME";
  return new LowrankError("ERR_WRITE", `${path}: cannot be written (${code}): ${advice}`, { cause: error });
}
