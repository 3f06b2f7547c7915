/** What went wrong, stable across versions; the message says where and what to do. */
export type ErrorCode =
  | "ERR_SHAPE_MISMATCH"
  | "ERR_DTYPE"
  | "ERR_DEVICE_MISMATCH"
  | "ERR_INDEX"
  | "ERR_MODIFIED"
  | "ERR_ABORTED"
  | "ERR_INTERNAL"
  | "ERR_NO_GRADIENT"
  | "ERR_DISPOSED"
  | "ERR_NO_GPU"
  | "ERR_UNKNOWN_ADAPTER"
  | "ERR_ADAPTER_EXISTS"
  | "ERR_FILE_NOT_FOUND"
  | "ERR_OUTPUT_EXISTS"
  | "ERR_WRITE"
  | "ERR_DATA_ROW"
  | "ERR_CHAT_TEMPLATE"
  | "ERR_HUB"
  | "ERR_DEVICE_LOST"
  | "ERR_OUT_OF_MEMORY"
  | "ERR_FILE_FORMAT"
  | "ERR_UNMATCHED_KEY"
  | "ERR_NO_TARGETS"
  | "ERR_NOT_FINITE"
  | "ERR_NO_TRAINED_TOKENS"
  | "ERR_UNSUPPORTED_MODEL"
  | "ERR_OPTION"
  | "ERR_NATIVE_LOAD";

/** The one class of errors that this package throws. */
export class LowrankError extends Error {
  /** `LowrankError`. */
  override readonly name = "LowrankError";
  /** What went wrong, stable across versions. */
  readonly code: ErrorCode;

  /** An error of `code`; `options.cause` is the error that led to it. */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** What an aborted operation rejects with: the signal's own reason. */
export function abortReason(signal: AbortSignal): unknown {
  return signal.reason ?? new LowrankError("ERR_ABORTED", "aborted");
}

/** Throws the signal's reason if it has been aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortReason(signal);
}

/** A system error's code, such as `ENOENT`; undefined for anything else. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
