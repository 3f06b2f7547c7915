// The utility process: every port that the main process hands over is a page that may train here.
import { serve } from "lowrank/electron";

const servers = [];

process.parentPort.on("message", async ({ data, ports }) => {
  for (const port of ports) servers.push(serve(port));
  if (data !== "quit") return;
  await Promise.all(servers.map((server) => server.close()));
  process.exit(0);
});
