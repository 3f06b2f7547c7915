/** What both ends of a port say to each other: plain objects that structured clone takes as they are. */
import { LowrankError, type ErrorCode } from "../errors.js";
import type { DeviceInfo } from "../device.js";
import type { FoundRuns } from "../runs/find.js";
import type { FinetuneResult, TrainEvent } from "../train/events.js";

/** Raised whenever a message changes; both ends must have the same. */
export const PROTOCOL = 2;

/** What a client asks. `run` and `call` are numbers of its own. */
export type Request =
  /** First, and answered by the server's own. */
  | { kind: "hello" }
  /** Starts a run, of which `credit` events may be sent. */
  | { kind: "start"; run: number; options: object; credit: number }
  /** So many more events may be sent. */
  | { kind: "pull"; run: number; credit: number }
  | { kind: "stop"; run: number }
  /** Pauses a run; answered by `paused` of the same number once that has taken effect. */
  | { kind: "pause"; run: number; pause: number }
  | { kind: "resume"; run: number }
  | { kind: "abort"; run: number }
  /** The last `saved` was read; the next may come. */
  | { kind: "noted"; run: number }
  | { kind: "devices"; call: number }
  /** Finds the runs below a folder. */
  | { kind: "runs"; call: number; folder: string }
  /** The client goes. */
  | { kind: "bye" };

/** What a server says. */
export type Reply =
  /** `notJson` is a number that JSON has not. */
  | { kind: "hello"; notJson: number }
  | { kind: "event"; run: number; event: TrainEvent }
  /** A checkpoint is on the disk: ahead of its event, which waits for a reader. */
  | { kind: "saved"; run: number; step: number; path: string }
  /** The run has paused, or will not: it was resumed, or has ended. */
  | { kind: "paused"; run: number; pause: number }
  | { kind: "result"; run: number; result: FinetuneResult }
  | { kind: "failed"; run: number; error: SentError; aborted: boolean }
  /** All events were sent. */
  | { kind: "end"; run: number }
  /** What a call of `devices` or `runs` resolves to. */
  | { kind: "answer"; call: number; value: DeviceInfo[] | FoundRuns }
  | { kind: "refused"; call: number; error: SentError }
  /** The server serves no more. */
  | { kind: "bye" };

/** What every message carries, so that others on the same port are told from it. */
export interface Tag {
  /** The protocol's number. */
  lowrank: number;
  /** For which end it is. */
  to: "client" | "server";
  /** The client that it is from or for. */
  client: string;
}

/** The message in what a port gave: bare, or as `data` of an event. Undefined of any other. */
export function messageIn(given: unknown): (Tag & { kind: string }) | undefined {
  if (typeof given !== "object" || given === null) return undefined;
  if (isMessage(given)) return given;
  const { data } = given as { data?: unknown };
  return typeof data === "object" && data !== null && isMessage(data) ? data : undefined;
}

function isMessage(value: object): value is Tag & { kind: string } {
  const { lowrank, to, client, kind } = value as Partial<Tag & { kind: unknown }>;
  return (
    typeof lowrank === "number" &&
    (to === "client" || to === "server") &&
    typeof client === "string" &&
    typeof kind === "string"
  );
}

/** An error on its way. */
export interface SentError {
  name: string;
  message: string;
  code?: string | undefined;
  stack?: string | undefined;
}

/** What was thrown, as a message carries it. */
export function sent(error: unknown): SentError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { name, message, stack } = error;
  const { code } = error as { code?: unknown };
  return { name, message, stack, code: typeof code === "string" ? code : undefined };
}

/** The error again, of its class where it is this package's, with the stack of where it was thrown. */
export function received({ name, message, code, stack }: SentError): Error {
  const error =
    name === "LowrankError" && code !== undefined
      ? new LowrankError(code as ErrorCode, message)
      : Object.assign(new Error(message), { name }, code === undefined ? {} : { code });
  if (stack !== undefined) error.stack = stack;
  return error;
}
