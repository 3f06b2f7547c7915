/** Errors as OpenAI's API answers them: a status, and an object that client libraries know. */
import { LowrankError, type ErrorCode } from "../errors.js";

/** An answer other than 200. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    message: string,
    /** The parameter at fault, and the error's code; null for none. */
    readonly details: { param?: string | null; code?: string | null } = {},
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }

  /** `{ error: { message, type, param, code } }`. */
  body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { param = null, code = null } = this.details;
    return { error: { message: this.message, type: typeOf(this.status), param, code } };
  }
}

/** A parameter that is missing, wrong or not supported: status 400. */
export function badParameter(param: string, message: string, code: string | null = null): ApiError {
  return new ApiError(400, message, { param, code });
}

function typeOf(status: number): string {
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/** Errors of the library that a request causes, and those that the machine's state causes. */
const STATUS: Partial<Record<ErrorCode, number>> = {
  ERR_CHAT_TEMPLATE: 400,
  ERR_OPTION: 400,
  ERR_INDEX: 400,
  ERR_OUT_OF_MEMORY: 503,
  ERR_DEVICE_LOST: 503,
};

/** Any error as an answer. A fault of this program says no more to the client than that there was one. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (!(error instanceof LowrankError)) return new ApiError(500, "internal error; the server's log has it");
  return new ApiError(STATUS[error.code] ?? 500, error.message, { code: error.code });
}
