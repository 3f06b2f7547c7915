/** One side of a race: a process that takes turns. */
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { peerPython } from "./peers.mjs";

/** What runs a side: a file beside this one (TypeScript, built JavaScript or Python), with its arguments. */
export type Entry = readonly [file: string, ...args: string[]];

export interface Turn {
  ms: number;
  /** How often the work was done in this turn; once unless said. */
  passes?: number;
  /** The highest resident set so far; null where the system does not tell. */
  peakMiB: number | null;
  tokensPerSecond?: number;
  /** Of generation: until the first new token, which the rate leaves out. */
  promptMs?: number;
  loss?: number;
}

/** The command that runs `entry`. */
function commandOf([file, ...args]: Entry): [string, string[]] {
  const path = fileURLToPath(new URL(file, import.meta.url));
  if (file.endsWith(".py")) return [peerPython(), [path, ...args]];
  return [process.execPath, [...(file.endsWith(".ts") ? ["--import=tsx"] : []), path, ...args]];
}

/** Lines of a process as JSON, in order. */
class Lines {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #name: string;

  constructor(entry: Entry) {
    this.#name = entry.join(" ");
    this.child = spawn(...commandOf(entry), { stdio: ["pipe", "pipe", "inherit"] });
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
  /** Ready for a first turn; what it says of itself. */
  ready(): Promise<Record<string, unknown>>;
  turn(): Promise<Turn>;
  end(): void;
}

/** A process that is kept, and answers a line with a turn. */
export function warm(entry: Entry): Side {
  const lines = new Lines(entry);
  return {
    ready: () => lines.next(),
    turn: () => {
      lines.child.stdin!.write("\n");
      return lines.next() as unknown as Promise<Turn>;
    },
    end: () => lines.end(),
  };
}

/** A process started anew for each turn, timed from its start to its first line. */
export function cold(entry: Entry): Side {
  return {
    ready: () => Promise.resolve({}),
    turn: async () => {
      const start = performance.now();
      const lines = new Lines(entry);
      const said = await lines.next();
      const ms = performance.now() - start;
      lines.end();
      return { peakMiB: null, ...said, ms };
    },
    end: () => {},
  };
}
