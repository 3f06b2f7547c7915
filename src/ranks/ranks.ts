/** The processes that train one adapter together, as the package `lowrank-mpi` connects them. */
import { refuse } from "../arguments/check.js";

/**
 * The ranks of a job: processes with the numbers 0 to `size` − 1, which call the same methods in the same order. Each
 * method resolves when all ranks have called it.
 */
export interface Ranks {
  /** The number of this process. */
  readonly rank: number;
  /** The number of processes. */
  readonly size: number;
  /** The number among the processes of this machine. */
  readonly localRank: number;
  /** The number of processes of this machine. */
  readonly localSize: number;
  /** The name of this machine. */
  readonly host: string;
  /** Returns the bytes of every rank, in rank order. */
  gather(bytes: Uint8Array): Promise<Uint8Array[]>;
  /** Sends `parts[r]` to each rank `r`. Returns what each rank sent to this one. */
  exchange(parts: readonly Uint8Array[]): Promise<Uint8Array[]>;
  /** Returns the sums of the values over all ranks; with `inOrder`, added in rank order. */
  sum(values: Float32Array, inOrder: boolean): Promise<Float32Array>;
  /** Ends the processes of all ranks, this one too, with an exit status. */
  abort(status: number): void;
  /** Disconnects; all ranks call it, and call nothing afterwards. */
  finish(): Promise<void>;
}

const NUMBERS = ["rank", "size", "localRank", "localSize"] as const;
const METHODS = ["gather", "exchange", "sum", "abort", "finish"] as const;

/** Whether a value has the properties of `Ranks`. */
export function isRanks(value: unknown): value is Ranks {
  if (typeof value !== "object" || value === null) return false;
  const given = value as Record<string, unknown>;
  return (
    NUMBERS.every((name) => Number.isSafeInteger(given[name])) &&
    METHODS.every((name) => typeof given[name] === "function")
  );
}

/** Throws `ERR_OPTION` unless the value has the properties of `Ranks`. */
export function checkRanks(where: string, value: unknown): Ranks {
  return isRanks(value) ? value : refuse(where, "ranks", "the result of lowrank-mpi's connect()", value);
}
