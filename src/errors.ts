/** The kind of an error, stable across versions; the message has the location and the remedy. */
export type ErrorCode =
  /** Incompatible shapes or numbers of elements. */
  | "ERR_SHAPE_MISMATCH"
  /** An element type that the operation does not support. */
  | "ERR_DTYPE"
  /** Tensors on different devices. */
  | "ERR_DEVICE_MISMATCH"
  /** A token id, a label or another index out of range. */
  | "ERR_INDEX"
  /** A tensor was modified in place although `backward` needs its previous values. */
  | "ERR_MODIFIED"
  /** A signal was aborted without a reason. With a reason, that reason is thrown. */
  | "ERR_ABORTED"
  /** A bug in this package. */
  | "ERR_INTERNAL"
  /** `backward` was called where nothing requires a gradient, or a second time. */
  | "ERR_NO_GRADIENT"
  /** A tensor, an optimizer or a model was used after it was disposed. */
  | "ERR_DISPOSED"
  /** No such GPU; the message lists the available ones. */
  | "ERR_NO_GPU"
  /** No adapter of that name; the message lists the loaded ones. */
  | "ERR_UNKNOWN_ADAPTER"
  /** An adapter of that name already exists. */
  | "ERR_ADAPTER_EXISTS"
  /** A file or a folder does not exist. */
  | "ERR_FILE_NOT_FOUND"
  /** The output already exists and would be overwritten, or another run writes to it. */
  | "ERR_OUTPUT_EXISTS"
  /** A file cannot be written. */
  | "ERR_WRITE"
  /** An invalid row of data; the message names file and line. */
  | "ERR_DATA_ROW"
  /** A chat template is missing, invalid, rejects the messages, or does not terminate. */
  | "ERR_CHAT_TEMPLATE"
  /** A model cannot be downloaded from the hub; the message has the reason, and the HTTP status if there is one. */
  | "ERR_HUB"
  /** The device stopped responding; its tensors are lost. */
  | "ERR_DEVICE_LOST"
  /** The device does not have enough free memory. */
  | "ERR_OUT_OF_MEMORY"
  /** A file is damaged or has another format; the message has the location. */
  | "ERR_FILE_FORMAT"
  /** A file or dictionary has keys that the model lacks, or lacks keys that the model has. */
  | "ERR_UNMATCHED_KEY"
  /** Targets that match no layer; the message lists candidates. */
  | "ERR_NO_TARGETS"
  /** NaN or infinity instead of a finite number. */
  | "ERR_NOT_FINITE"
  /** Data without any tokens to train on. */
  | "ERR_NO_TRAINED_TOKENS"
  /** A model or a configuration setting that is not supported. */
  | "ERR_UNSUPPORTED_MODEL"
  /** An invalid argument or option; the message names it and the valid values. */
  | "ERR_OPTION"
  /** The native binary cannot be loaded; the message has the remedy. */
  | "ERR_NATIVE_LOAD"
  /** The process or worker of a run has ended, or its port was closed; the message names the last checkpoint. */
  | "ERR_DISCONNECTED"
  /** The two ends of a port are incompatible: different versions, or a channel that serialises to JSON. */
  | "ERR_PROTOCOL";

/** The class of all errors that this package throws. */
export class LowrankError extends Error {
  /** `LowrankError`. */
  override readonly name = "LowrankError";
  /** The kind of error, stable across versions. */
  readonly code: ErrorCode;

  /** Makes an error with `code`; `options.cause` is the underlying error. */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** Returns the error that an aborted operation rejects with: the signal's reason. */
export function readAbortReason(signal: AbortSignal): unknown {
  return signal.reason ?? new LowrankError("ERR_ABORTED", "aborted");
}

/** Throws the signal's reason if it has been aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw readAbortReason(signal);
}

/** Returns a system error's code, such as `ENOENT`; undefined for other errors. */
export function readSystemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
