/** Descriptions of unsupported features, from which both errors and docs/refused.md are made. */
import { LowrankError, type ErrorCode } from "../errors.js";
import { nameOptions } from "../arguments/option-name.js";

/** An unsupported feature. Library options are in backticks, so that a command can replace them by its flags. */
export interface Refusal {
  /** The feature. */
  readonly what: string;
  /** The context in which it is unsupported. */
  readonly where: string;
  readonly reason: string;
  /** The remedy. */
  readonly instead: string;
}

/** Makes the error of a refusal. `place` is the call or the file, `found` the offending value. */
export function createRefusal(
  { what, where, reason, instead }: Refusal,
  place: string,
  found?: string,
  code: ErrorCode = "ERR_OPTION",
): LowrankError {
  const met = found === undefined ? "" : ` (${found})`;
  return new LowrankError(
    code,
    `${place}: ${nameOptions(`${what} ${where}`)}${met}: ${nameOptions(`${reason}; ${instead}`)}`,
  );
}

/** Formats reason and remedy, for an error that describes the offending value itself. */
export function explain({ reason, instead }: Refusal): string {
  return nameOptions(`${reason}; ${instead}`);
}
