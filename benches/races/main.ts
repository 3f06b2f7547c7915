/**
 * Races against peers: each side in a separate process, taking turns in one run on the same cores.
 *
 *   npx tsx benches/races/main.ts [RACE…] [--rounds N] [--machine]      table.ts lists the races
 *
 * Without names, or with --machine, it first measures the machine's peak rates. peers.mjs installs the peers.
 */
import { parseArgs } from "node:util";

import { measured, SHAPES, type Machine } from "./machine.js";
import { median } from "./median.mjs";
import { byRounds, cold, warm, type Turn } from "./side.js";
import { RACES, type Race } from "./table.js";

const { values, positionals } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    machine: { type: "boolean", default: false },
  },
  allowPositionals: true,
});
const rounds = Number(values.rounds);

interface Figures {
  label: string;
  ms: number;
  peak: number;
  rate: number;
  prompt: number;
}

function figuresOf(label: string, turns: Turn[], { tokens = 0 }: Race): Figures {
  const ms = median(turns.map((t) => t.ms / (t.passes ?? 1)));
  const told = median(turns.map((t) => t.tokensPerSecond ?? 0));
  return {
    label,
    ms,
    peak: Math.max(...turns.map((t) => t.peakMiB ?? 0)),
    rate: told > 0 ? told : (tokens / ms) * 1000,
    prompt: median(turns.map((t) => t.promptMs ?? 0)),
  };
}

/** Races lowrank against each peer, all taking turns. */
async function run(race: Race, machine: Machine | undefined): Promise<void> {
  const entries = Object.entries({ ours: race.ours, ...race.peers });
  const sides = entries.map(([label, entry]) => {
    const kind = race.cold?.includes(label) ? cold : warm;
    return () => kind(entry);
  });
  const turns = await byRounds(sides, rounds);
  const figures = entries.map(([label], i) => figuresOf(label, turns[i]!, race));
  const [ours] = figures as [Figures];
  console.log(`\n${race.title} (median of ${rounds})`);
  for (const f of figures) {
    const parts = [f.label.padEnd(12), `${f.ms.toFixed(1).padStart(9)} ms`];
    if (f.prompt > 0) parts.push(`prompt ${f.prompt.toFixed(1)} ms`);
    if (f.rate > 0) parts.push(`${f.rate.toFixed(1).padStart(7)} tokens/s`);
    if (race.bytesOfToken !== undefined) {
      parts.push(`${((f.rate * race.bytesOfToken) / 1e9).toFixed(1)} GB/s of weights`);
    }
    if (race.flops !== undefined) {
      const rate = race.flops / f.ms / 1e6;
      const share =
        machine === undefined
          ? ""
          : ` (${percent(rate / machine.bestPeerGemm(race.products ?? SHAPES))} of the best peer's product)`;
      parts.push(`${rate.toFixed(0).padStart(4)} GFLOP/s${share}`);
    }
    if (f.peak > 0) parts.push(`peak ${f.peak.toFixed(0).padStart(5)} MiB`);
    if (f !== ours) {
      parts.push(`ours is ${(f.ms / ours.ms).toFixed(2)} times as fast`);
      if (f.prompt > 0) {
        const [prompt, decoding] = [f.prompt / ours.prompt, ours.rate / f.rate];
        parts.push(`(prompt ${prompt.toFixed(2)}, decoding ${decoding.toFixed(2)})`);
      }
      if (f.peak > 0) parts.push(`in ${(ours.peak / f.peak).toFixed(2)} of the peak memory`);
    }
    console.log(`  ${parts.join("  ")}`);
  }
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}

const chosen = positionals.length > 0 ? positionals : Object.keys(RACES);
const unknown = chosen.find((name) => RACES[name] === undefined);
if (unknown !== undefined) {
  console.error(`there is no race ${unknown}; there are ${Object.keys(RACES).join(", ")}`);
  process.exit(2);
}
const products = chosen.flatMap((name) => RACES[name]?.products ?? []);
const machine = values.machine || positionals.length === 0 ? await measured(rounds, products) : undefined;
for (const name of chosen) await run(RACES[name] as Race, machine);
