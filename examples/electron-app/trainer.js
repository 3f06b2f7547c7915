// The utility process. Over each port from the main process, a page trains with lowrank's messages and makes other
// requests with those of requests.js.
import { inspect } from "lowrank";
import { serve } from "lowrank/electron";

import { Conversation } from "./conversation.js";
import { answer } from "./requests.js";
import { findRuns } from "./runs.js";

const servers = [];
const conversation = new Conversation();
let looking;

/** Reports the contents of a path (see lowrank's Inspected). Cancels an earlier inspection, which may be a download. */
function look({ path, model }, tell) {
  looking?.abort();
  looking = new AbortController();
  const { signal } = looking;
  return inspect(path, { ...(model !== undefined && { model }), rows: 3, signal, onProgress: tell });
}

process.parentPort.on("message", async ({ data, ports }) => {
  for (const port of ports) {
    servers.push(serve(port));
    answer(port, {
      inspect: look,
      runs: findRuns,
      chat: (asked, tell) => conversation.say(asked, tell),
      interrupt: () => conversation.interrupt(),
      // Leaves all memory to the run.
      release: () => conversation.release(),
    });
  }
  if (data !== "quit") return;
  await Promise.all(servers.map((server) => server.close()));
  process.exit(0);
});
