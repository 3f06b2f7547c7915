/** The messages between both ends of a port: plain objects that can be structured-cloned. */
import { LowrankError, type ErrorCode } from "../errors.js";
import type { DeviceInfo } from "../device/device.js";
import type { FoundRuns } from "../runs/find.js";
import type { FinetuneResult, TrainEvent } from "../train/events.js";

/** The version of the protocol, increased with each change of a message; both ends must have the same. */
export const PROTOCOL = 2;

/** A message of a client. `run` and `call` are numbers that the client assigns. */
export type Request =
  /** The first message; the server answers with its own `hello`. */
  | { kind: "hello" }
  /** Starts a run, and allows the server to send `credit` events. */
  | { kind: "start"; run: number; options: object; credit: number }
  /** Allows the server to send `credit` more events. */
  | { kind: "pull"; run: number; credit: number }
  | { kind: "stop"; run: number }
  /** Pauses a run; answered by `paused` with the same number once it has taken effect. */
  | { kind: "pause"; run: number; pause: number }
  | { kind: "resume"; run: number }
  | { kind: "abort"; run: number }
  /** Confirms the last `saved`; the server may send the next. */
  | { kind: "noted"; run: number }
  | { kind: "devices"; call: number }
  /** Finds the runs in a folder. */
  | { kind: "runs"; call: number; folder: string }
  /** The client disconnects. */
  | { kind: "bye" };

/** A message of a server. */
export type Reply =
  /** `notJson` is NaN, which JSON cannot represent. */
  | { kind: "hello"; notJson: number }
  | { kind: "event"; run: number; event: TrainEvent }
  /** A checkpoint is on the disk. Sent before the checkpoint's event, which may wait for a reader. */
  | { kind: "saved"; run: number; step: number; path: string }
  /** The run has paused, or will not pause because it was resumed or has ended. */
  | { kind: "paused"; run: number; pause: number }
  | { kind: "result"; run: number; result: FinetuneResult }
  | { kind: "failed"; run: number; error: SentError; aborted: boolean }
  /** All events were sent. */
  | { kind: "end"; run: number }
  /** The result of `devices` or `runs`. */
  | { kind: "answer"; call: number; value: DeviceInfo[] | FoundRuns }
  | { kind: "refused"; call: number; error: SentError }
  /** The server stops serving. */
  | { kind: "bye" };

/** The fields of every message, which distinguish it from other messages on the same port. */
export interface Tag {
  /** The version of the protocol. */
  lowrank: number;
  /** The receiving end. */
  to: "client" | "server";
  /** The name of the sending or receiving client. */
  client: string;
}

/** Extracts a message from an event's `data`, or returns a bare message. Undefined for anything else. */
export function extractMessage(given: unknown): (Tag & { kind: string }) | undefined {
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

/** An error in a message. */
export interface SentError {
  name: string;
  message: string;
  code?: string | undefined;
  stack?: string | undefined;
}

/** Converts a thrown value for a message. */
export function serializeError(error: unknown): SentError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { name, message, stack } = error;
  const { code } = error as { code?: unknown };
  return { name, message, stack, code: typeof code === "string" ? code : undefined };
}

/** Recreates an error, with its class if it is this package's, and with its original stack. */
export function deserializeError({ name, message, code, stack }: SentError): Error {
  const error =
    name === "LowrankError" && code !== undefined
      ? new LowrankError(code as ErrorCode, message)
      : Object.assign(new Error(message), { name }, code === undefined ? {} : { code });
  if (stack !== undefined) error.stack = stack;
  return error;
}
