/**
 * Which checkpoints come before which. A run that goes on from an older checkpoint leaves the later ones behind: from
 * there on it is a branch of its own, and numbers alone don't tell the two apart.
 */
import { randomBytes } from "node:crypto";

/** A stretch of a run under one name, up to a step where another went on; the last is open. */
export interface Segment {
  lineage: string;
  until?: number | undefined;
}

/** All that a run consists of, oldest first. */
export type Line = readonly Segment[];

function newLineage(): string {
  return randomBytes(6).toString("hex");
}

export function newLine(): Line {
  return [{ lineage: newLineage() }];
}

/** The name under which a run goes on. */
export function lineageOf(line: Line): string {
  return (line.at(-1) as Segment).lineage;
}

/** Whether a checkpoint is a part of a run. */
export function within(line: Line, { lineage, step }: { lineage: string; step: number }): boolean {
  return line.some((segment) => segment.lineage === lineage && step <= (segment.until ?? Infinity));
}

/** The line of a run that goes on, under a new name, from a checkpoint of `line` after `step` steps. */
export function branched(line: Line, step: number): Line {
  const kept = line.slice(0, -1);
  return [...kept, { lineage: lineageOf(line), until: step }, { lineage: newLineage() }];
}

/** Whether a value that was read is a line. */
export function isLine(value: unknown): value is Line {
  if (!Array.isArray(value) || value.length === 0) return false;
  return value.every((one: Partial<Segment> | null, i) => {
    const until = one?.until;
    return typeof one?.lineage === "string" && (i === value.length - 1) === (until === undefined);
  });
}
