// The places where an MPI library is looked for.
import { existsSync, realpathSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";

/** The file names of the libraries, by the launcher's variable that tells which one it belongs to. */
const OPEN_MPI = ["libmpi.so.40", "libmpi.40.dylib"];
const MPICH = ["libmpi.so.12", "libmpich.so.12", "libmpi.12.dylib"];

/** Whether a launcher of Open MPI started this process. */
const isOpenMpi = (env) => env.OMPI_COMM_WORLD_SIZE !== undefined;

/** Returns the folder of the launcher's installation, if the launcher is on the path. */
function findPrefix(env) {
  for (const folder of (env.PATH ?? "").split(delimiter)) {
    const launcher = join(folder, "mpirun");
    if (folder !== "" && existsSync(launcher)) return dirname(dirname(realpathSync(launcher)));
  }
  return undefined;
}

/**
 * Returns the names under which the MPI library is opened, in order: `LOWRANK_MPI_LIBRARY` alone; else the libraries
 * beside the launcher, then those that the system's loader finds.
 */
export function listLibraries(env) {
  const { LOWRANK_MPI_LIBRARY: given, MPI_HOME: home } = env;
  if (given !== undefined && given !== "") return [given];
  const names = isOpenMpi(env) ? OPEN_MPI : [...MPICH, ...OPEN_MPI];
  const prefixes = [home, env.OPAL_PREFIX, findPrefix(env)].filter((prefix) => prefix !== undefined);
  const beside = prefixes
    .flatMap((prefix) => names.map((name) => join(prefix, "lib", name)))
    .filter(existsSync);
  return [...beside, ...names];
}
