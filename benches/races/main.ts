/**
 * Races against peers: each side in its own process, taking turns in one run on the same cores.
 *
 *   npx tsx benches/races/main.ts [step|generate] [--rounds N]
 *
 * The peer's Python is LOWRANK_PEER_PYTHON (an environment with test/parity/requirements.txt).
 */
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  options: { rounds: { type: "string", default: "5" } },
  allowPositionals: true,
});
const rounds = Number(values.rounds);
const python = process.env["LOWRANK_PEER_PYTHON"] ?? "python3";
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

interface Turn {
  ms: number;
  peakMiB: number | null;
  tokensPerSecond?: number;
  loss?: number;
}

/** One side: a process that answers a line with a turn. */
class Side {
  readonly turns: Turn[] = [];
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(command: string, args: string[]) {
    this.#child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  async ready(): Promise<void> {
    await this.#answer();
  }

  async turn(): Promise<void> {
    this.#child.stdin!.write("\n");
    this.turns.push((await this.#answer()) as unknown as Turn);
  }

  end(): void {
    this.#child.stdin!.end();
    this.#child.kill();
  }

  async #answer(): Promise<Record<string, unknown>> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("a side of the race ended early");
    return JSON.parse(value) as Record<string, unknown>;
  }
}

function median(list: number[]): number {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

async function race(name: string, own: string, peer: string): Promise<void> {
  const sides = {
    ours: new Side(process.execPath, ["--import=tsx", here(own)]),
    peer: new Side(python, [here(peer)]),
  };
  for (const side of Object.values(sides)) await side.ready();
  for (let i = 0; i < rounds; i++) for (const side of Object.values(sides)) await side.turn();
  const figure = (side: Side): { ms: number; peak: number; rate: number } => ({
    ms: median(side.turns.map((t) => t.ms)),
    peak: Math.max(...side.turns.map((t) => t.peakMiB ?? 0)),
    rate: median(side.turns.map((t) => t.tokensPerSecond ?? 0)),
  });
  const [ours, theirs] = [figure(sides.ours), figure(sides.peer)];
  for (const [label, f] of [
    ["ours", ours],
    ["peer", theirs],
  ] as const) {
    const rate = f.rate > 0 ? `  ${f.rate.toFixed(1)} tokens/s` : "";
    console.log(
      `${name}  ${label}  ${f.ms.toFixed(0)} ms${rate}  peak ${f.peak.toFixed(0)} MiB  (median of ${rounds})`,
    );
  }
  console.log(
    `${name}  ratio: ${(theirs.ms / ours.ms).toFixed(2)} times as fast, ${(ours.peak / theirs.peak).toFixed(2)} of the peak memory`,
  );
  for (const side of Object.values(sides)) side.end();
}

const races: Record<string, () => Promise<void>> = {
  step: () => race("LoRA step, 1 x 512", "own-step.ts", "peer_step.py"),
  generate: () => race("generation, 64 + 128", "own-generate.ts", "peer_generate.py"),
};
for (const name of positionals.length > 0 ? positionals : Object.keys(races)) {
  const run = races[name];
  if (run === undefined)
    throw new Error(`there is no race ${name}; there are ${Object.keys(races).join(", ")}`);
  await run();
}
