// `lowrank serve` as a process, and its answers to requests without a client.
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { startJob } from "../job.mjs";

const LONGEST_MS = 600_000;
const QUESTION = { messages: [{ role: "user", content: "Where is the whale?" }], prompt: "The whale" };
const MAX_TOKENS = 24;

/** Starts the server; `stop` ends it and returns a row of the table about its log. */
export async function startServer(folder) {
  const token = randomBytes(16).toString("hex");
  const main = join(folder, "node_modules", "lowrank", "dist", "cli", "main.js");
  const argv = ["serve", "--port", "0", "--device", "cpu", "--chat-template", "template.jinja", "--json"];
  let announce;
  const announced = new Promise((resolve) => (announce = resolve));
  const job = startJob(process.execPath, [main, ...argv], {
    folder,
    env: { LOWRANK_TOKEN: token },
    longestMs: LONGEST_MS,
    onEvent: announce,
  });
  const ended = job.ended.then(({ status, stderr }) => {
    throw new Error(`lowrank serve ended with ${status}: ${stderr.slice(-2000)}`);
  });
  const { url, models } = await Promise.race([announced, ended]);
  ended.catch(() => {});
  return { url, token, model: models[0], stop: () => stop(job) };
}

async function stop(job) {
  job.child.kill("SIGINT");
  const { status, stderr } = await job.ended;
  const requests = stderr.split("\n").filter((line) => / \/v1\/\S+ /.test(line));
  const faults = requests.filter((line) => / 5\d\d /.test(line));
  const passed = status === 130 && requests.length > 0 && faults.length === 0;
  const outcome = passed ? `${requests.length} requests` : `exit status ${status}; ${faults.join("; ")}`;
  return { client: "the server", call: "no status 5xx in the log", passed, outcome };
}

/** Returns what a program needs: the server, the questions, and the answers without a client. */
export async function askPlainly({ url, token, model }) {
  const ask = async (path, question) => {
    const response = await fetch(`${url}/${path}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ model, temperature: 0, max_tokens: MAX_TOKENS, ...question }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(answer)}`);
    return answer.choices[0];
  };
  const { messages, prompt } = QUESTION;
  const chat = (await ask("chat/completions", { messages })).message.content;
  const completion = (await ask("completions", { prompt })).text;
  // A word in the middle of the answer.
  const [stop] = chat.slice(chat.length / 2).match(/\w{3,}/) ?? [];
  if (stop === undefined) throw new Error(`the answer has no word to stop at: ${JSON.stringify(chat)}`);
  return { ...{ url, token, model, messages, prompt, chat, completion, stop }, maxTokens: MAX_TOKENS };
}
