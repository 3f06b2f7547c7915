/** The options of a run that can be sent through a port. */
import { isPlain, refuse, formatValue } from "../arguments/check.js";
import type { Row } from "../data/given.js";
import type { FinetuneOptions } from "../train/options.js";

/**
 * The options of `finetune` without objects of one process: the model is given by its path, and an initialisation from
 * data uses the run's data. The serving process resolves paths from its working directory.
 */
export interface RemoteFinetuneOptions extends Omit<
  FinetuneOptions,
  "model" | "lora" | "data" | "evalData" | "ranks"
> {
  /** A model's folder. Required, unless a run is resumed. */
  model?: string | undefined;
  /** A file, several files, or an array of rows without speech. */
  data?: string | readonly string[] | readonly Row[] | undefined;
  /** The held-out rows, in any form of `data`. */
  evalData?: string | readonly string[] | readonly Row[] | undefined;
  /** The options of `finetune`, without `evaData`. */
  lora?: Omit<NonNullable<FinetuneOptions["lora"]>, "evaData"> | undefined;
}

const WHERE = "finetune";

/** Separates the options to send from the signal, which is not sent. Throws `ERR_OPTION` for a value that cannot be sent. */
export function separateSignal(given: RemoteFinetuneOptions): {
  options: object;
  signal: AbortSignal | undefined;
} {
  if (!isPlain(given)) refuse(WHERE, "the argument", "an object of options", given);
  const { signal, ...options } = given;
  if (signal !== undefined && !isSignal(signal)) refuse(WHERE, "signal", "an AbortSignal", signal);
  if (typeof options.model === "object")
    refuse(WHERE, "model", "the path of a folder, since a loaded model stays in its process", options.model);
  for (const [name, value] of Object.entries(options)) check(name, value, []);
  return { options, signal };
}

function isSignal(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    "aborted" in value &&
    typeof (value as { addEventListener?: unknown }).addEventListener === "function"
  );
}

/** Throws `ERR_OPTION` unless `value` consists of strings, numbers, booleans, arrays and plain objects. */
function check(name: string, value: unknown, around: readonly object[]): void {
  if (value === null || ["undefined", "string", "number", "boolean", "bigint"].includes(typeof value)) return;
  const parts = Array.isArray(value)
    ? value.map((part, i) => [`${name}[${i}]`, part] as const)
    : isPlain(value)
      ? Object.entries(value).map(([key, part]) => [`${name}.${key}`, part] as const)
      : undefined;
  if (parts === undefined)
    refuse(WHERE, name, "a value that can be sent to another process", describeSymbol(value));
  if (around.includes(value as object)) refuse(WHERE, name, "free of cycles", value);
  for (const [path, part] of parts) check(path, part, [...around, value as object]);
}

/** Formats a symbol for an error; returns other values unchanged. */
function describeSymbol(value: unknown): unknown {
  return typeof value === "symbol" ? formatValue(String(value)) : value;
}
