// The launchers of this machine's MPI libraries.
import { chmodSync, mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { answer } from "../platforms/command.mjs";

/** Debian's names of the launchers, which may both be installed. */
const NAMES = ["mpirun.openmpi", "mpirun.mpich"];

/**
 * Returns the launchers with these names or paths; without any, the ones of Debian's names, or else `mpirun`. `folder`
 * gets a folder for each with an `mpirun` that starts it.
 */
export function findLaunchers(given, folder) {
  const found = (given.length > 0 ? given : NAMES).filter(
    (name) => answer(name, ["--version"]) !== undefined,
  );
  const missing = given.filter((name) => !found.includes(name));
  if (missing.length > 0) throw new Error(`cannot start ${missing.join(", ")}`);
  if (found.length === 0 && answer("mpirun", ["--version"]) !== undefined) found.push("mpirun");
  return found.map((name, i) => describe(name, join(folder, `launcher-${i}`)));
}

function describe(name, folder) {
  const version = answer(name, ["--version"]);
  const isMpich = version.includes("HYDRA");
  const [number] = /\d+\.\d+[\d.]*/.exec(version) ?? ["of unknown version"];
  const path = realpathSync(name.includes("/") ? name : answer("sh", ["-c", `command -v ${name}`]).trim());
  mkdirSync(folder);
  // More ranks than cores, and root in a container.
  const more = isMpich ? "" : " --oversubscribe";
  writeFileSync(join(folder, "mpirun"), `#!/bin/sh\nexec "${path}"${more} "$@"\n`);
  chmodSync(join(folder, "mpirun"), 0o755);
  return {
    title: `${isMpich ? "MPICH" : "Open MPI"} ${number}`,
    forwardsUsr2: !isMpich,
    folder,
    env: {
      PATH: `${folder}:${process.env.PATH}`,
      MPI_HOME: dirname(dirname(path)),
      OMPI_ALLOW_RUN_AS_ROOT: "1",
      OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
    },
  };
}
