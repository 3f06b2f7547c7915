/** Errors in the format of OpenAI's API: a status, and an object that client libraries understand. */
import { LowrankError, type ErrorCode } from "../errors.js";

/** An error response. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    message: string,
    /** The invalid parameter, and the error's code; null for none. */
    readonly details: { param?: string | null; code?: string | null } = {},
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }

  /** Returns `{ error: { message, type, param, code } }`. */
  toBody(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { param = null, code = null } = this.details;
    return { error: { message: this.message, type: nameType(this.status), param, code } };
  }
}

/** Returns the error, status 400, of a missing, invalid or unsupported parameter. */
export function createParameterError(param: string, message: string, code: string | null = null): ApiError {
  return new ApiError(400, message, { param, code });
}

function nameType(status: number): string {
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/** Statuses of library errors caused by a request or by the machine's state. */
const STATUS: Partial<Record<ErrorCode, number>> = {
  ERR_CHAT_TEMPLATE: 400,
  ERR_OPTION: 400,
  ERR_INDEX: 400,
  ERR_OUT_OF_MEMORY: 503,
  ERR_DEVICE_LOST: 503,
};

/** Converts any error to an API error. For an internal fault, the client gets no details. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (!(error instanceof LowrankError)) return new ApiError(500, "internal error; the server's log has it");
  return new ApiError(STATUS[error.code] ?? 500, error.message, { code: error.code });
}
