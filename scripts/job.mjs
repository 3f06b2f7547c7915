// Commands that run beside this one, with the events that they print and their end.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Starts a command in a folder. `onEvent` is called at each event that it prints; it is killed after `longestMs`. */
export function startJob(command, args, { folder, env, longestMs = 60_000, onEvent = () => {} }) {
  const child = spawn(command, args, {
    cwd: folder,
    env: { ...process.env, ...env, NO_COLOR: "1", FORCE_COLOR: undefined, NODE_OPTIONS: "" },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true, // A process group, so that nothing outlives it.
  });
  const job = { child, events: [], stdout: "", stderr: "" };
  let rest = "";
  child.stdout.on("data", (chunk) => {
    job.stdout += chunk;
    const lines = `${rest}${chunk}`.split("\n");
    rest = lines.pop();
    for (const line of lines.filter((one) => one.startsWith("{"))) {
      job.events.push(JSON.parse(line));
      onEvent(job.events.at(-1), child);
    }
  });
  child.stderr.on("data", (chunk) => (job.stderr += chunk));
  const timer = setTimeout(() => process.kill(-child.pid, "SIGKILL"), longestMs);
  job.ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status, signal) => {
      clearTimeout(timer);
      resolve({ ...job, status: status ?? signal });
    });
  });
  return job;
}

/** Runs a command to its end. Throws with its output if its exit status is not 0. */
export async function runJob(command, args, options) {
  const job = await startJob(command, args, options).ended;
  if (job.status === 0) return job;
  throw new Error(`${[command, ...args].join(" ")}: ${job.status}\n${job.stderr.slice(-2000)}`);
}

/** Returns the losses of a job's steps and evaluations. */
export function listLosses({ events }) {
  return events.filter(({ type }) => type === "step" || type === "eval").map(({ loss }) => loss);
}

/** Returns the bytes of a run's adapter. */
export function readAdapter(output) {
  return readFileSync(join(output, "adapter_model.safetensors"));
}

/** Whether a process exists. */
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    // A zombie has ended.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
