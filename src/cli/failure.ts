/** How the command line ends: exit statuses, and the one line that says why. */
import { CommanderError } from "commander";
import { escaped } from "./escaped.js";
import { LowrankError } from "../errors.js";
import { nameOptions } from "../option-name.js";
import type { Refusal } from "../refusals/refusal.js";

const DONE = 0;
export const FAILED = 1;
const WRONG_USAGE = 2;

/** Signals that end a command, and the exit status after each: 128 and its number. */
const SIGNALLED = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
export type EndingSignal = keyof typeof SIGNALLED;

export function statusOf(signal: EndingSignal): number {
  return SIGNALLED[signal];
}

/** Wrong usage of a command: exit status 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The error of options that do not go together; `found` is what was given. */
export function misused({ what, where, reason, instead }: Refusal, found?: string): UsageError {
  const met = found === undefined ? "" : ` (${found})`;
  return new UsageError(`${nameOptions(`${what} ${where}`)}${met}: ${nameOptions(`${reason}; ${instead}`)}`);
}

/** Thrown by a command whose answer, which it has written, is no: exit status 1, and nothing more is said. */
export class AnsweredNo extends Error {
  override readonly name = "AnsweredNo";
}

/** Thrown by a command that a signal ended, once it has cleaned up. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  readonly signal: EndingSignal;

  constructor(signal: EndingSignal) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }
}

/** On one line, and escaped: messages quote files. */
function oneLine(text: string): string {
  return escaped(text.trim().replaceAll(/\s*[\n\r]\s*/g, " "));
}

/** Writes a line about the command's work to stderr. */
export function notice(text: string): void {
  process.stderr.write(`lowrank: ${oneLine(text)}\n`);
}

/** Writes a warning to stderr. */
export function warn(text: string): void {
  notice(`warning: ${text}`);
}

function messageOf(error: unknown): string {
  if (error instanceof CommanderError) return error.message.replace(/^error: /, "");
  if (error instanceof LowrankError || error instanceof UsageError) return error.message;
  const message = error instanceof Error ? error.message : String(error);
  return `unexpected: ${message} (LOWRANK_DEBUG=1 shows where)`;
}

/** Says on stderr what went wrong, and returns the exit status. */
export function failure(error: unknown, debug = process.env["LOWRANK_DEBUG"] === "1"): number {
  if (error instanceof Interrupted) return statusOf(error.signal);
  if (error instanceof AnsweredNo) return FAILED;
  // Help and version are thrown, too.
  if (error instanceof CommanderError && error.exitCode === 0) return DONE;
  notice(messageOf(error));
  if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return error instanceof UsageError || error instanceof CommanderError ? WRONG_USAGE : FAILED;
}
