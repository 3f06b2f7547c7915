/** The ranks of an MPI job: processes that call the same methods in the same order. */
export interface Communication {
  /** The number of this process, from 0. */
  readonly rank: number;
  /** The number of processes. */
  readonly size: number;
  /** The number among the processes of this machine. */
  readonly localRank: number;
  /** The number of processes of this machine. */
  readonly localSize: number;
  /** The name of this machine. */
  readonly host: string;
  /** The name and version of the MPI library. */
  readonly library: string;
  /** Returns the bytes of every rank, in rank order. */
  gather(bytes: Uint8Array): Promise<Uint8Array[]>;
  /** Sends `parts[r]` to each rank `r`. Returns what each rank sent to this one. */
  exchange(parts: readonly Uint8Array[]): Promise<Uint8Array[]>;
  /**
   * Returns the sums of the values over all ranks. With `inOrder` they are added in rank order, so that all ranks and all
   * runs get the same bits; otherwise in an order that the MPI library chooses.
   */
  sum(values: Float32Array, inOrder: boolean): Promise<Float32Array>;
  /** Ends the processes of all ranks, this one too, with an exit status. */
  abort(status: number): void;
  /** Ends MPI; all ranks call it, and call nothing afterwards. */
  finish(): Promise<void>;
}

/**
 * Connects this process with the other ranks of its job, by the MPI library of the launcher (`mpirun`, `srun`): Open MPI
 * 4 or 5, MPICH 4 or 5, or a library with MPICH's binary interface. `LOWRANK_MPI_LIBRARY` names another library file.
 * Later calls return the same connection.
 *
 * Throws an error with the code `ERR_MPI` if no library can be opened.
 */
export function connect(): Promise<Communication>;
