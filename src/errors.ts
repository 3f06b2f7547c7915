/** What went wrong, stable across versions; the message says where and what to do. */
export type ErrorCode =
  /** Shapes, or numbers of elements, that do not go together. */
  | "ERR_SHAPE_MISMATCH"
  /** An operation on elements of another type than it takes. */
  | "ERR_DTYPE"
  /** Tensors on different devices. */
  | "ERR_DEVICE_MISMATCH"
  /** A token id, a label or another index outside of what it names. */
  | "ERR_INDEX"
  /** A tensor was changed in place while `backward` needs what it held. */
  | "ERR_MODIFIED"
  /** A signal was aborted without a reason; with one, the reason itself is thrown. */
  | "ERR_ABORTED"
  /** A fault of this package, not of the caller. */
  | "ERR_INTERNAL"
  /** `backward` where nothing asks for a gradient, or a second time. */
  | "ERR_NO_GRADIENT"
  /** A tensor, an optimizer or a model is used after it was disposed. */
  | "ERR_DISPOSED"
  /** No such GPU; the message lists what there is. */
  | "ERR_NO_GPU"
  /** No adapter of that name; the message lists those there are. */
  | "ERR_UNKNOWN_ADAPTER"
  /** An adapter of that name is there already. */
  | "ERR_ADAPTER_EXISTS"
  /** A file or a folder that is not there. */
  | "ERR_FILE_NOT_FOUND"
  /** What is at the output already would be lost, or another run writes there. */
  | "ERR_OUTPUT_EXISTS"
  /** A file cannot be written. */
  | "ERR_WRITE"
  /** A row of data that cannot be used; the message names file and line. */
  | "ERR_DATA_ROW"
  /** A chat template that is absent, cannot be read, refuses the messages, or does not come to an end. */
  | "ERR_CHAT_TEMPLATE"
  /** A model cannot be had from a hub; the message says why, and the status where there is one. */
  | "ERR_HUB"
  /** The device stopped answering; its tensors are lost. */
  | "ERR_DEVICE_LOST"
  /** What is asked for does not fit on the device beside what is in use. */
  | "ERR_OUT_OF_MEMORY"
  /** A file that is damaged or not of its format; the message says where. */
  | "ERR_FILE_FORMAT"
  /** Names in a file or a dictionary that the model has not, or the other way round. */
  | "ERR_UNMATCHED_KEY"
  /** Patterns of targets that match no layer; the message lists candidates. */
  | "ERR_NO_TARGETS"
  /** NaN or infinity where a number is needed. */
  | "ERR_NOT_FINITE"
  /** Data of which nothing would be trained on. */
  | "ERR_NO_TRAINED_TOKENS"
  /** A model, or a setting of its configuration, that is not supported. */
  | "ERR_UNSUPPORTED_MODEL"
  /** An argument or an option that is wrong; the message names it and says what it may be. */
  | "ERR_OPTION"
  /** The native binary cannot be loaded; the message says how to mend it. */
  | "ERR_NATIVE_LOAD"
  /** The process or worker that a run lives in has gone, or the port to it; the message names the last checkpoint. */
  | "ERR_DISCONNECTED"
  /** The two ends of a port do not understand each other: other versions, or a channel of JSON. */
  | "ERR_PROTOCOL";

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
