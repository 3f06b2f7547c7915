// The utility process. Over each port that the main process hands over, a page trains by lowrank's own messages, and
// asks for the rest by those of requests.js.
import { inspect } from "lowrank";
import { serve } from "lowrank/electron";

import { Conversation } from "./conversation.js";
import { answer } from "./requests.js";

const servers = [];
const conversation = new Conversation();

process.parentPort.on("message", async ({ data, ports }) => {
  for (const port of ports) {
    servers.push(serve(port));
    answer(port, {
      // What a path holds, and whether it can be used: see lowrank's Inspected.
      inspect: ({ path, model }) => inspect(path, { ...(model !== undefined && { model }), rows: 4 }),
      chat: (asked, tell) => conversation.say(asked, tell),
      interrupt: () => conversation.interrupt(),
      // A run has the memory to itself.
      release: () => conversation.release(),
    });
  }
  if (data !== "quit") return;
  await Promise.all(servers.map((server) => server.close()));
  process.exit(0);
});
