// Runs commands of this machine.
import { spawnSync } from "node:child_process";

/** The output of a command; undefined if it fails or does not exist. */
export function answer(command, args) {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 26 });
  return status === 0 ? stdout : undefined;
}

/** Runs a command; returns its status and output. Throws if it cannot be started or takes too long. */
export function run(command, args, { seconds = 3600, ...options } = {}) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    timeout: seconds * 1000,
    killSignal: "SIGKILL",
    ...options,
  });
  if (error !== undefined) throw new Error(`${command}: ${error.message}`);
  return { status: status ?? `ended by ${signal}`, stdout: stdout ?? "", stderr: stderr ?? "" };
}

/** Runs a command; throws with the end of its output if the status is not 0. */
export function must(command, args, options) {
  const { status, stdout, stderr } = run(command, args, options);
  if (status === 0) return stdout;
  throw new Error(`${[command, ...args].join(" ")}: ${status}\n${`${stdout}${stderr}`.slice(-4000)}`);
}
