/** Runs on several ranks without MPI: each rank is a process, and this one passes their messages on. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";

import type { FinetuneOptions, FinetuneResult, TrainEvent } from "../../src/index.js";

const PROGRAM = fileURLToPath(new URL("rank.mjs", import.meta.url));

/** What one rank has done. */
export interface RankRun {
  pid: number;
  events: TrainEvent[];
  result?: FinetuneResult;
  error?: string;
}

interface Call {
  method: "gather" | "exchange" | "sum";
  value: unknown;
}

/** What a rank sends. */
type Message =
  | ({ type: "call" } & Call)
  | { type: "event"; event: TrainEvent }
  | { type: "result"; result: FinetuneResult }
  | { type: "error"; message: string };

export interface Launch {
  /** Changes the options of a rank. */
  change?: ((rank: number) => Partial<FinetuneOptions>) | undefined;
  /** Returns the working folder of a rank; by default this process's. */
  cwd?: ((rank: number) => string) | undefined;
  /** Called at each event, with a function that stops its rank. */
  onEvent?: ((rank: number, event: TrainEvent, stop: () => void) => void) | undefined;
}

/** Runs one fine-tuning on `size` ranks. */
export async function runOnRanks(
  size: number,
  options: FinetuneOptions,
  { change = () => ({}), cwd = () => process.cwd(), onEvent }: Launch = {},
): Promise<RankRun[]> {
  const children = Array.from({ length: size }, (_, rank) =>
    fork(PROGRAM, [], { serialization: "advanced", cwd: cwd(rank) }),
  );
  const calls: Call[][] = children.map(() => []);
  const runs: RankRun[] = children.map(({ pid }) => ({ pid: pid as number, events: [] }));
  const answer = (): void => {
    while (calls.every(({ length }) => length > 0)) {
      const met = calls.map((own) => own.shift() as Call);
      for (const [rank, value] of combine(met).entries()) children[rank]!.send({ type: "answer", value });
    }
  };
  const ended = children.map(
    (child: ChildProcess, rank) =>
      new Promise<void>((resolve) => {
        child.on("message", (message: Message) => {
          const run = runs[rank]!;
          if (message.type === "call") {
            calls[rank]!.push(message);
            answer();
          } else if (message.type === "event") {
            run.events.push(message.event);
            onEvent?.(rank, message.event, () => void child.send({ type: "stop" }));
          } else if (message.type === "result") run.result = message.result;
          else run.error = message.message;
        });
        child.on("exit", () => resolve());
        child.send({ type: "start", rank, size, options: { ...options, ...change(rank) } });
      }),
  );
  await Promise.all(ended);
  return runs;
}

/** Returns the answer to each rank. */
function combine(met: readonly Call[]): unknown[] {
  const [{ method }] = met as [Call];
  const others = met.filter((call) => call.method !== method);
  if (others.length > 0) throw new Error(`${method} meets ${others[0]!.method}`);
  const values = met.map(({ value }) => value);
  if (method === "gather") return values.map(() => values);
  if (method === "exchange")
    return values.map((_, rank) => (values as unknown[][]).map((sent) => sent[rank]));
  const [first, ...rest] = values as Float32Array[];
  const sums = first!.slice();
  for (const other of rest) for (const [i, value] of other.entries()) sums[i]! += value;
  return values.map(() => sums);
}
