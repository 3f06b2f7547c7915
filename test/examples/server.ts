/** The server of examples/, as a process. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as after } from "node:timers/promises";

export interface ServerProcess {
  post(path: string, body: string): Promise<object>;
  /** Resolves with the result of a user's run, once it neither waits nor trains. */
  ends(user: string): Promise<{ state: string; loss?: number; code?: string }>;
  /** Ends the server as a service manager does. */
  stop(): Promise<{ status: number | null; errors: string }>;
  kill(): void;
}

export async function startServer(project: string): Promise<ServerProcess> {
  const args = [
    join("server", "main.js"),
    "--port",
    "0",
    "--folder",
    join("server", "users"),
    "--steps",
    "20",
  ];
  const child = spawn(process.execPath, args, { cwd: project, env: { ...process.env, NODE_OPTIONS: "" } });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const ended = once(child, "exit");
  const [line] = (await Promise.race([
    once(createInterface(child.stdout), "line"),
    ended.then(() => Promise.reject(new Error(errors))),
  ])) as [string];
  const url = line.replace("listening on ", "");
  const asked = async (path: string, init?: RequestInit): Promise<object> =>
    (await (await fetch(url + path, init)).json()) as object;
  return {
    post: (path, body) => asked(path, { method: "POST", body }),
    async ends(user) {
      for (;;) {
        const found = (await asked(`/users/${user}`)) as { state: string };
        if (!["waiting", "training"].includes(found.state)) return found;
        await after(50);
      }
    },
    async stop() {
      child.kill("SIGTERM");
      const [status] = (await ended) as [number | null];
      return { status, errors };
    },
    kill: () => child.kill("SIGKILL"),
  };
}
