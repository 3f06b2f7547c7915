/** The server's log: a line a request, without any text of it. */
import type { ServerResponse } from "node:http";

import type { ApiError } from "./api-error.js";
import type { Usage } from "./responses.js";

/** A request, as far as the server has read it. */
export interface Entry {
  method: string;
  path: string;
  /** Milliseconds of the process's clock. */
  started: number;
  /** The served model that it named. */
  model?: string | undefined;
  usage?: () => Usage;
  finish?: () => string;
  error?: ApiError | undefined;
  /** The error behind an answer that says no more than "internal error". */
  fault?: unknown;
}

/** Methods and paths by which a line names a request; another is the client's own text, and is left out. */
const METHODS = ["GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH"];
const PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/models"];

/** `POST /v1/chat/completions 200 ada 12+34 tokens stop 0.120s`. */
export function logLine(entry: Entry, response: ServerResponse): string {
  const { method, path, started, model, usage, finish, error, fault } = entry;
  const seconds = ((performance.now() - started) / 1000).toFixed(3);
  const gone = !response.writableFinished;
  const tokens = usage?.();
  const parts = [
    METHODS.includes(method) ? method : "?",
    PATHS.find((known) => path === known || path.startsWith(`${known}/`)) ?? "?",
    gone && !response.headersSent ? "-" : String(response.statusCode),
    ...(model === undefined ? [] : [model]),
    ...(tokens === undefined ? [] : [`${tokens.prompt_tokens}+${tokens.completion_tokens} tokens`]),
    ...(finish === undefined || error !== undefined ? [] : [finish()]),
    ...(error === undefined ? [] : [error.details.code ?? "error"]),
    ...(gone ? ["client gone"] : []),
    `${seconds}s`,
  ];
  const cause = fault instanceof Error ? ` (${fault.name}: ${fault.message.replaceAll(/\s+/g, " ")})` : "";
  return parts.join(" ") + cause;
}
