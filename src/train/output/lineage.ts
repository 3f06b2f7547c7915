/**
 * The ancestry of checkpoints. A run that resumes from an older checkpoint abandons the later ones and becomes a branch
 * with a new name, because step numbers alone do not distinguish the two.
 */
import { randomBytes } from "node:crypto";

/** A part of a run under one name, up to the step of a branch; the last segment is open. */
export interface Segment {
  lineage: string;
  until?: number | undefined;
}

/** All segments of a run, oldest first. */
export type Line = readonly Segment[];

function createLineage(): string {
  return randomBytes(6).toString("hex");
}

export function createLine(): Line {
  return [{ lineage: createLineage() }];
}

/** Returns the name of a run's last segment. */
export function readLineage(line: Line): string {
  return (line.at(-1) as Segment).lineage;
}

/** Returns the name of a run's first segment, which its branches share. */
export function readOrigin(line: Line): string {
  return (line[0] as Segment).lineage;
}

/** Whether a checkpoint belongs to a run. */
export function isWithinLine(line: Line, { lineage, step }: { lineage: string; step: number }): boolean {
  return line.some((segment) => segment.lineage === lineage && step <= (segment.until ?? Infinity));
}

/** Returns the line of a run that branches off from `line` after `step` steps, under a new name. */
export function branchLine(line: Line, step: number): Line {
  const earlier = line.slice(0, -1);
  return [...earlier, { lineage: readLineage(line), until: step }, { lineage: createLineage() }];
}

/** Whether a value from a file is a line. */
export function isLine(value: unknown): value is Line {
  if (!Array.isArray(value) || value.length === 0) return false;
  return value.every((segment: Partial<Segment> | null, i) => {
    const until = segment?.until;
    return typeof segment?.lineage === "string" && (i === value.length - 1) === (until === undefined);
  });
}
