/** One side of a race: a process that takes turns. */
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { built, llamaPython, peerPython, qvac, randomModel, smollm2, smollm2Unpacked } from "./peers.mjs";

/**
 * The command of a side: a file in this folder (TypeScript, JavaScript or Python), or a program that peers.mjs builds, with its arguments. Names of
 * MODELS among them are replaced by the paths of models that peers.mjs makes.
 */
export type Entry = readonly [what: string, ...args: string[]];

export const MODEL = "MODEL";
export const GGUF = "GGUF";
export const UNPACKED = "UNPACKED";
const MODELS: Record<string, () => string> = { MODEL: randomModel, GGUF: smollm2, UNPACKED: smollm2Unpacked };

export interface Turn {
  ms: number;
  /** The number of passes in this turn; 1 by default. */
  passes?: number;
  /** The peak of the resident set so far; null if the system does not report it. */
  peakMiB?: number | null;
  tokensPerSecond?: number;
  /** For generation: the time to the first new token, which the rate excludes. */
  promptMs?: number;
  loss?: number;
  /** GFLOP/s and GB/s by name. */
  rates?: Record<string, number>;
}

/** The command that runs `entry`. */
function commandOf([what, ...given]: Entry): [string, string[]] {
  const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url));
  const args = given.map((arg) => MODELS[arg]?.() ?? arg);
  if (what === "burn" || what === "rates") return [built(what), args];
  if (what === "qvac") {
    const { bare, installed, folder } = qvac();
    return [bare, [here("peer_qvac.cjs"), installed, folder]];
  }
  if (what === "peer_llama.py") return [llamaPython(), [here(what), ...args]];
  if (what.endsWith(".py")) return [peerPython(), [here(what), ...args]];
  return [process.execPath, [...(what.endsWith(".ts") ? ["--import=tsx"] : []), here(what), ...args]];
}

/** A process's lines, parsed as JSON, by arrival. */
class Lines {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #name: string;

  constructor(name: string, [command, args]: [string, string[]]) {
    this.#name = name;
    this.child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]();
  }

  async next(): Promise<Record<string, unknown>> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error(`${this.#name} ended early`);
    return JSON.parse(value) as Record<string, unknown>;
  }

  end(): void {
    this.child.stdin!.end();
    this.child.kill();
  }
}

export interface Side {
  /** Waits until the side is ready for its first turn; returns its description. */
  ready(): Promise<Record<string, unknown>>;
  turn(): Promise<Turn>;
  end(): void;
}

/** A persistent process that answers each line with a turn. */
export function warm(entry: Entry): Side {
  const lines = new Lines(entry.join(" "), commandOf(entry));
  return {
    ready: () => lines.next(),
    turn: () => {
      lines.child.stdin!.write("\n");
      return lines.next() as unknown as Promise<Turn>;
    },
    end: () => lines.end(),
  };
}

/** A new process for each turn, timed from its start to its first line, unless that line has a time. */
export function cold(entry: Entry): Side {
  const command = commandOf(entry);
  return {
    ready: () => Promise.resolve({}),
    turn: async () => {
      const start = performance.now();
      const lines = new Lines(entry.join(" "), command);
      const said = await lines.next();
      const ms = performance.now() - start;
      lines.end();
      return { ms, ...said };
    },
    end: () => {},
  };
}

/**
 * Rounds per process. The placement of a process's memory is random and stays for its lifetime: the medians of one product in six processes
 * that took turns were 122 to 141 GFLOP/s.
 */
const KEPT = 3;

/** The turns of each side, one per round; processes are restarted every few rounds. */
export async function byRounds(begin: readonly (() => Side)[], rounds: number): Promise<Turn[][]> {
  const turns: Turn[][] = begin.map(() => []);
  for (let from = 0; from < rounds; from += KEPT) {
    const sides = begin.map((one) => one());
    for (const side of sides) await side.ready();
    for (let round = from; round < Math.min(from + KEPT, rounds); round++) {
      for (const [i, side] of sides.entries()) turns[i]!.push(await side.turn());
    }
    for (const side of sides) side.end();
  }
  return turns;
}
