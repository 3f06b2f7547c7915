/** A run's figures in a format that other programs read, beside its events: appended to as the run goes on. */
import type { RecordedEvent } from "./events-file.js";

/** Formats that a run may be logged in besides. */
export const LOG_FORMATS = ["tensorboard", "csv"] as const;
/** One of them. */
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Turns events into what stands in a file. */
export interface MetricsFormat {
  /** The name of the file in the output folder, its folders divided by "/". */
  readonly name: string;
  /** Whether a file of that name that begins so is a run's. */
  isOwn(beginning: Buffer): boolean;
  /** What the file begins with. */
  head(): Buffer;
  /** What an event adds; empty where that is nothing yet. */
  add(event: RecordedEvent): Buffer;
  /** What is left to add when no event comes any more. */
  rest(): Buffer;
}

/** A number of an event; undefined where it has none. */
export function numberOf(event: RecordedEvent, field: string): number | undefined {
  const value = event[field];
  return typeof value === "number" ? value : undefined;
}
