// The utility process: pages train here over the ports that the main process passes on.
import { serve } from "lowrank/electron";

const servers = [];

process.parentPort.on("message", async ({ data, ports }) => {
  for (const port of ports) servers.push(serve(port));
  if (data !== "quit") return;
  await Promise.all(servers.map((server) => server.close()));
  process.exit(0);
});
