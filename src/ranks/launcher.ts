/** The launcher of this process: `mpirun`, `srun`, or none. */
import { LowrankError } from "../errors.js";
import type { Ranks } from "./ranks.js";

/** The variables with the number of ranks: of Open MPI, of MPICH and its relatives, and of Slurm's steps. */
const SIZES = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] as const;
const PACKAGE = "lowrank-mpi";

/** Returns the number of ranks with which this process was started; 1 without a launcher. */
export function countLaunchedRanks(env: NodeJS.ProcessEnv): number {
  for (const name of SIZES) {
    const count = Number(env[name]);
    if (Number.isSafeInteger(count) && count > 0) return count;
  }
  return 1;
}

/**
 * Connects the ranks that a launcher has started. Undefined without a launcher, or with a single rank.
 *
 * Throws `ERR_OPTION` if `lowrank-mpi` is not installed, cannot use an MPI library, or connects another number of ranks.
 */
export async function connectLaunched(env: NodeJS.ProcessEnv = process.env): Promise<Ranks | undefined> {
  const size = countLaunchedRanks(env);
  if (size === 1) return undefined;
  const { connect } = await importPackage(size);
  const ranks = await connect().catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ERR_MPI") throw cause;
    throw new LowrankError("ERR_OPTION", cause.message, { cause });
  });
  if (ranks.size === size) return ranks;
  const what = `${size} ranks were started, and MPI connects ${ranks.size}`;
  throw new LowrankError(
    "ERR_OPTION",
    `${what}: start them by the mpirun of the MPI library that is used here, or name that library with LOWRANK_MPI_LIBRARY`,
  );
}

async function importPackage(size: number): Promise<{ connect: () => Promise<Ranks> }> {
  try {
    // Not a dependency: computed, so that no bundler looks for it.
    const found = (await import([PACKAGE].join())) as { connect?: unknown };
    if (typeof found.connect === "function") return found as { connect: () => Promise<Ranks> };
    throw new LowrankError("ERR_OPTION", `${PACKAGE} has no function connect; install its current version`);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const what = `this process is one of ${size} ranks, and the package ${PACKAGE} is not installed`;
    throw new LowrankError("ERR_OPTION", `${what}: install it beside lowrank (npm install ${PACKAGE})`, {
      cause,
    });
  }
}
