// The server of the tests, as a worker, a forked process or an emulated utility process. Environment:
// LOWRANK_ELECTRON, the module to import, and LOWRANK_ON_DISCONNECT. Messages of the form { task } belong to the
// test itself.
import { parentPort } from "node:worker_threads";

const { env } = process;
if (parentPort !== null) (await import("tsx/esm/api")).register();
const { serve } = await import(env.LOWRANK_ELECTRON);
const port = process.parentPort ?? parentPort ?? process;
const options = env.LOWRANK_ON_DISCONNECT ? { onDisconnect: env.LOWRANK_ON_DISCONNECT } : {};
const servers = [serve(port, options)];

const tasks = {
  abort: () => process.abort(),
  exit: () => process.exit(7),
  throw: () => {
    throw new Error("on purpose");
  },
  close: () => Promise.all(servers.map((server) => server.close())),
};

port.on("message", (value) => {
  const { data = value, ports = [] } = value ?? {};
  for (const one of ports) servers.push(serve(one, options));
  if (typeof data?.task === "string") void tasks[data.task]();
});
