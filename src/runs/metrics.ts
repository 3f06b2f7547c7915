/** Formats for a run's figures that other programs read, in addition to its events. */
import type { RecordedEvent } from "./events-file.js";

/** The additional log formats. */
export const LOG_FORMATS = ["tensorboard", "csv"] as const;
/** A log format. */
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Converts events to the content of a file. */
export interface MetricsFormat {
  /** The path of the file in the output folder, with "/" as the separator. */
  readonly name: string;
  /** Whether a file of that name with this beginning was written by a run. */
  isOwn(beginning: Buffer): boolean;
  /** Returns the beginning of the file. */
  encodeHead(): Buffer;
  /** Returns the bytes to append for an event; may be empty. */
  add(event: RecordedEvent): Buffer;
  /** Returns the remaining bytes at the end of the run. */
  takeRest(): Buffer;
}

/** Returns a number of an event; undefined if it has none. */
export function readNumber(event: RecordedEvent, field: string): number | undefined {
  const value = event[field];
  return typeof value === "number" ? value : undefined;
}
