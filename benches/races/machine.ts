/** The machine of a race and its peak rates, measured in the same run. */
import { readFileSync } from "node:fs";
import { cpus } from "node:os";

import { median } from "./median.mjs";
import { byRounds, warm } from "./side.js";

/** The most expensive products of a step, and a large square one. */
export const SHAPES = ["512x1536x576", "512x576x1536", "512x49152x576"] as const;
const SQUARE = "4096x4096x4096";

export interface Machine {
  /** GFLOP/s of the fastest peer's f32 product at one of these measured shapes. */
  bestPeerGemm(shapes: readonly string[]): number;
}

/** Cores, clock and memory, as far as the system reports them. */
function described(): string {
  const [first] = cpus();
  const flags = ((): string => {
    try {
      const line = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
      return ["avx2", "avx512f", "avx512_bf16", "amx_bf16"].filter((f) => line.includes(` ${f}`)).join(" ");
    } catch {
      return "";
    }
  })();
  return `${first?.model ?? "processor"}, ${cpus().length} threads${flags === "" ? "" : ` (${flags})`}`;
}

/**
 * Measures alternately and prints: multiply-adds, memory, and f32 products of lowrank, gemm, faer, numpy and PyTorch, for
 * the products of a step, a large square one and `others`.
 */
export async function measured(rounds: number, others: readonly string[]): Promise<Machine> {
  const shapes = [...new Set([...SHAPES, SQUARE, ...others])];
  const sides = ["rates", "own-gemm.ts", "peer_gemm.py"].map((what) => () => warm([what, ...shapes]));
  const found = new Map<string, number[]>();
  for (const turn of (await byRounds(sides, rounds)).flat()) {
    for (const [name, rate] of Object.entries(turn.rates ?? {})) {
      found.set(name, [...(found.get(name) ?? []), rate]);
    }
  }
  const rate = (name: string): number => median(found.get(name) ?? [0]);
  const fma = rate("fma");
  console.log(`${described()}; Node ${process.versions.node}`);
  console.log(
    `multiply-adds in registers ${fma.toFixed(0)} GFLOP/s (f32), reading memory ${rate("memory").toFixed(1)} GB/s`,
  );
  const who = ["ours", "gemm", "faer", "numpy", "torch"];
  console.log(`\n${"f32 products, GFLOP/s".padEnd(22)}${who.map((name) => name.padStart(8)).join("")}`);
  for (const shape of shapes) {
    const cells = who.map((name) => rate(`${name} ${shape}`).toFixed(0).padStart(8));
    console.log(`${shape.padEnd(22)}${cells.join("")}`);
  }
  const peers = who.slice(1);
  return {
    bestPeerGemm: (of) => Math.max(...of.flatMap((shape) => peers.map((name) => rate(`${name} ${shape}`)))),
  };
}
