/** Exit statuses, and the one-line error message. */
import { CommanderError } from "commander";
import { escapeControls } from "./escaped.js";
import { LowrankError } from "../../errors.js";
import { nameOptions } from "../../arguments/option-name.js";
import type { Refusal } from "../../refusals/refusal.js";

const DONE = 0;
export const FAILED = 1;
const WRONG_USAGE = 2;

/** Signals that end a command, with the exit status: 128 plus the signal's number. */
const SIGNALLED = { SIGHUP: 129, SIGINT: 130, SIGUSR2: 140, SIGTERM: 143 } as const;
export type EndingSignal = keyof typeof SIGNALLED;

export function readExitStatus(signal: EndingSignal): number {
  return SIGNALLED[signal];
}

/** Incorrect usage of a command; exit status 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Makes an error for options that cannot be combined; `found` is the value given. */
export function createMisuse({ what, where, reason, instead }: Refusal, found?: string): UsageError {
  const met = found === undefined ? "" : ` (${found})`;
  return new UsageError(`${nameOptions(`${what} ${where}`)}${met}: ${nameOptions(`${reason}; ${instead}`)}`);
}

/** Thrown by a command that has printed a negative result: exit status 1 without a further message. */
export class AnsweredNo extends Error {
  override readonly name = "AnsweredNo";
}

/** Thrown after cleanup by a command that was ended by a signal. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  readonly signal: EndingSignal;

  constructor(signal: EndingSignal) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }
}

/** Puts a message on one line and escapes it, since messages may quote files. */
function toOneLine(text: string): string {
  return escapeControls(text.trim().replaceAll(/\s*[\n\r]\s*/g, " "));
}

/** Writes a line about the command's progress to stderr. */
export function notice(text: string): void {
  process.stderr.write(`lowrank: ${toOneLine(text)}\n`);
}

/** Writes a warning to stderr. */
export function warn(text: string): void {
  notice(`warning: ${text}`);
}

function formatMessage(error: unknown): string {
  if (error instanceof CommanderError) return error.message.replace(/^error: /, "");
  if (error instanceof LowrankError || error instanceof UsageError) return error.message;
  const message = error instanceof Error ? error.message : String(error);
  return `unexpected: ${message} (LOWRANK_DEBUG=1 shows where)`;
}

/** Prints the error to stderr, after `where`, and returns the exit status. */
export function reportFailure(
  error: unknown,
  where = "",
  debug = process.env["LOWRANK_DEBUG"] === "1",
): number {
  if (error instanceof Interrupted) return readExitStatus(error.signal);
  if (error instanceof AnsweredNo) return FAILED;
  // Commander also throws for help and version.
  if (error instanceof CommanderError && error.exitCode === 0) return DONE;
  notice(where + formatMessage(error));
  if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return error instanceof UsageError || error instanceof CommanderError ? WRONG_USAGE : FAILED;
}
