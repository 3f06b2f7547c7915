/** The server's log: one line per request, without its texts. */
import type { ServerResponse } from "node:http";

import type { ApiError } from "./api-error.js";
import type { Usage } from "./responses.js";

/** A log entry; fields are filled in as the request is processed. */
export interface Entry {
  /** The response's `x-request-id`. */
  id: string;
  method: string;
  path: string;
  /** The start time by the process's clock, in milliseconds. */
  started: number;
  /** The requested model. */
  model?: string | undefined;
  usage?: () => Usage;
  finish?: () => string;
  error?: ApiError | undefined;
  /** The error behind a response of "internal error". */
  fault?: unknown;
}

/** Methods and paths that may appear in the log; any other is text from the client and is omitted. */
const METHODS = ["GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH"];
const PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/models", "/health"];

/** Formats a line: `POST /v1/chat/completions 200 ada 12+34 tokens stop 0.120s req_5f0c…`. */
export function logLine(entry: Entry, response: ServerResponse): string {
  const { id, method, path, started, model, usage, finish, error, fault } = entry;
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
    id,
  ];
  const cause = fault instanceof Error ? ` (${fault.name}: ${fault.message.replaceAll(/\s+/g, " ")})` : "";
  return parts.join(" ") + cause;
}
