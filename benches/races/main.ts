/**
 * Races against peers: each side in its own process, taking turns in one run on the same cores.
 *
 *   npx tsx benches/races/main.ts [RACE…] [--rounds N]      the races are at the end of this file
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
  /** How often the work was done in this turn; once unless said. */
  passes?: number;
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

/** What runs a side: a file beside this one, with its arguments. */
type Entry = readonly [file: string, ...args: string[]];

function start([file, ...args]: Entry): Side {
  const path = here(file);
  return file.endsWith(".py")
    ? new Side(python, [path, ...args])
    : new Side(process.execPath, ["--import=tsx", path, ...args]);
}

/** Races ours against each peer, all taking turns. */
async function race(name: string, own: Entry, peers: Record<string, Entry>): Promise<void> {
  const sides = Object.entries({ ours: own, ...peers }).map(([label, entry]) => ({
    label,
    side: start(entry),
  }));
  for (const { side } of sides) await side.ready();
  for (let i = 0; i < rounds; i++) for (const { side } of sides) await side.turn();
  const figures = sides.map(({ label, side }) => ({
    label,
    ms: median(side.turns.map((t) => t.ms / (t.passes ?? 1))),
    peak: Math.max(...side.turns.map((t) => t.peakMiB ?? 0)),
    rate: median(side.turns.map((t) => t.tokensPerSecond ?? 0)),
  }));
  for (const { side } of sides) side.end();
  const [ours] = figures;
  for (const f of figures) {
    const rate = f.rate > 0 ? `  ${f.rate.toFixed(1)} tokens/s` : "";
    const against =
      f === ours || ours === undefined
        ? ""
        : `  ours is ${(f.ms / ours.ms).toFixed(2)} times as fast, in ${(ours.peak / f.peak).toFixed(2)} of the peak memory`;
    console.log(
      `${name}  ${f.label}  ${f.ms.toFixed(1)} ms${rate}  peak ${f.peak.toFixed(0)} MiB  (median of ${rounds})${against}`,
    );
  }
}

/** A layer beside loralib's and PEFT's; and beside PyTorch's frozen layer alone, where that has a backward. */
function layer(title: string, name: string): () => Promise<void> {
  const beside = name === "embedding" ? ["loralib", "peft"] : ["loralib", "peft", "frozen"];
  const peers = beside.map((peer): [string, Entry] => [peer, ["peer_layer.py", peer, name]]);
  return () => race(title, ["own-layer.ts", name], Object.fromEntries(peers));
}

const races: Record<string, () => Promise<void>> = {
  step: () => race("LoRA step, 1 x 512", ["own-step.ts"], { peft: ["peer_step.py"] }),
  generate: () => race("generation, 64 + 128", ["own-generate.ts"], { transformers: ["peer_generate.py"] }),
  linear: layer("Linear 4096 -> 4096, 512 tokens", "linear"),
  linear2048: layer("Linear 4096 -> 4096, 2048 tokens", "linear2048"),
  embedding: layer("Embedding 49152 x 576, 2048 tokens", "embedding"),
  gpt2: () =>
    race("GPT-2 small step, 4 x 256", ["own-gpt2.ts"], {
      loralib: ["peer_gpt2.py", "loralib"],
      peft: ["peer_gpt2.py", "peft"],
    }),
  conv2d: layer("Conv2d 256 -> 256, 3x3, 8 x 32 x 32", "conv2d"),
};
const chosen = positionals.length > 0 ? positionals : Object.keys(races);
for (const name of chosen) {
  const run = races[name];
  if (run === undefined)
    throw new Error(`there is no race ${name}; there are ${Object.keys(races).join(", ")}`);
  await run();
}
