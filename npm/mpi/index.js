import { existsSync, fstatSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { listLibraries } from "./libraries.js";

const BINARY = `lowrank-mpi.${process.platform}-${process.arch}.node`;

let connecting;

/** Connects this process with the other ranks of its job; see index.d.ts. */
export function connect() {
  connecting ??= open();
  return connecting;
}

async function open() {
  const file = fileURLToPath(new URL(BINARY, import.meta.url));
  if (!existsSync(file)) {
    const what = `has no binary for ${process.platform} on ${process.arch}`;
    throw fail(`lowrank-mpi ${what}: build it from the source of lowrank with npm run build:mpi`);
  }
  checkLauncherSocket(process.env);
  // UCX, by which Open MPI sends, replaces the code of memory functions while threads of V8 may run it: one in about
  // thirty processes crashed.
  process.env.UCX_MEM_EVENTS ??= "no";
  const { connect: open } = createRequire(import.meta.url)(file);
  const libraries = listLibraries(process.env);
  try {
    return await open(libraries);
  } catch (error) {
    const remedy = "install Open MPI or MPICH, or name the library with LOWRANK_MPI_LIBRARY";
    throw fail(`no MPI library could be used: ${error.message}; ${remedy}`, error);
  }
}

/** Throws if the socket of MPICH's launcher is closed: the library would end the process. */
function checkLauncherSocket({ PMI_FD: descriptor }) {
  if (descriptor === undefined || isSocket(Number(descriptor))) return;
  const what = "the connection to the launcher is closed, as npx closes it";
  throw fail(`${what}; start node_modules/.bin/lowrank instead of npx lowrank`);
}

function isSocket(descriptor) {
  try {
    return fstatSync(descriptor).isSocket();
  } catch {
    return false;
  }
}

function fail(message, cause) {
  return Object.assign(new Error(message, { cause }), { code: "ERR_MPI" });
}
