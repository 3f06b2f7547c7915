/** What is refused, and why: the errors are made of it, and so is docs/refused.md. */
import { LowrankError, type ErrorCode } from "../errors.js";
import { nameOptions } from "../option-name.js";

/** One thing that is refused. Options of the library stand between backticks, so that a command names its flags. */
export interface Refusal {
  /** The thing itself. */
  readonly what: string;
  /** With what, or on what. */
  readonly where: string;
  readonly reason: string;
  /** What to do. */
  readonly instead: string;
}

/** The error of a refusal. `place` is the call or the file, and `found` what of it was met there. */
export function refused(
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

/** Why, and what to do, for an error that says itself what was met. */
export function because({ reason, instead }: Refusal): string {
  return nameOptions(`${reason}; ${instead}`);
}
