// A server that trains one adapter per user, and answers all users over one base model.
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Answers } from "./answers.js";
import { Trainings } from "./trainings.js";

const embedded = join(fileURLToPath(import.meta.resolve("lowrank/package.json")), "..", "models", "default");
const { values } = parseArgs({
  options: {
    model: { type: "string", default: embedded },
    folder: { type: "string", default: "users" },
    port: { type: "string", default: "8080" },
    steps: { type: "string", default: "40" },
  },
});
/** The maximum size of a request in bytes. */
const LARGEST = 16 * 2 ** 20;

const answers = await Answers.over(values.model);
const trainings = new Trainings((user, adapter) => answers.use(user, adapter));
// Loads adapters that an earlier server trained.
await mkdir(values.folder, { recursive: true });
for (const user of await readdir(values.folder)) {
  const adapter = join(values.folder, user, "adapter");
  if (existsSync(join(adapter, "adapter_config.json"))) await answers.use(user, adapter);
}

async function bodyOf(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > LARGEST) throw new RangeError(`a request has at most ${LARGEST} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** Rows to train on, as JSON lines. */
async function train(user, request) {
  if (["waiting", "training"].includes(trainings.states.get(user)?.state))
    return [409, { error: "a run of this user waits or trains" }];
  const folder = join(values.folder, user);
  await mkdir(folder, { recursive: true });
  const data = join(folder, "rows.jsonl");
  await writeFile(data, await bodyOf(request));
  trainings.add(user, {
    model: values.model,
    data,
    output: join(folder, "adapter"),
    overwrite: true,
    steps: Number(values.steps),
    gradientAccumulation: 4,
    lora: { r: 8 },
    optimizer: { lr: 5e-3 },
  });
  return [202, trainings.states.get(user)];
}

const server = createServer(async (request, response) => {
  const [, user, what] = /^\/users\/([a-z0-9-]{1,32})(\/rows|\/ask)?$/.exec(request.url) ?? [];
  let [status, answer] = [404, { error: "no such thing" }];
  try {
    if (user !== undefined && request.method === "GET" && what === undefined)
      [status, answer] = [200, trainings.states.get(user) ?? { state: "unknown" }];
    if (request.method === "POST" && what === "/rows") [status, answer] = await train(user, request);
    if (request.method === "POST" && what === "/ask")
      [status, answer] = [200, await answers.ask(user, await bodyOf(request))];
  } catch (error) {
    [status, answer] = [error instanceof RangeError ? 400 : 500, { error: error.message }];
  }
  response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(answer)}\n`);
});
server.listen(Number(values.port), "127.0.0.1");
await once(server, "listening");
console.log(`listening on http://127.0.0.1:${server.address().port}`);

// On shutdown, the training run is saved and pending requests are answered.
for (const signal of ["SIGINT", "SIGTERM"])
  process.once(signal, async () => {
    server.close();
    await trainings.close();
    server.closeIdleConnections();
    console.log("closed");
  });
