// One rank of a run, in a separate process: its messages to the other ranks go through its parent.
import { finetune } from "../../dist/index.js";

const waiting = [];
const call = (method, value) => {
  process.send({ type: "call", method, value });
  return new Promise((resolve) => waiting.push(resolve));
};

let run;
process.on("message", (message) => {
  if (message.type === "answer") waiting.shift()(message.value);
  else if (message.type === "stop") run.stop().catch(() => {});
  else void start(message);
});

async function start({ rank, size, options }) {
  const ranks = {
    rank,
    size,
    localRank: rank,
    localSize: size,
    host: "here",
    gather: (bytes) => call("gather", bytes),
    exchange: (parts) => call("exchange", parts),
    sum: (values) => call("sum", values),
    abort: (status) => process.exit(status),
    finish: () => Promise.resolve(),
  };
  run = finetune({ ...options, ranks });
  try {
    for await (const event of run) process.send({ type: "event", event });
    process.send({ type: "result", result: await run.result });
  } catch (error) {
    process.send({ type: "error", message: error.message });
  }
  process.disconnect();
}
