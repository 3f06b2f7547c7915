/** The races: a line each. */
import { stepFlops } from "./flops.js";
import type { Entry } from "./side.js";

export interface Race {
  title: string;
  ours: Entry;
  peers: Record<string, Entry>;
  /** A process anew for each turn, timed from its start. */
  cold?: boolean;
  /** Tokens of a turn, for a rate. */
  tokens?: number;
  /** Floating-point operations that a turn cannot do without. */
  flops?: number;
  /** Bytes of weights that a decoded token reads. */
  bytesOfToken?: number;
}

/** A training step of SmolLM2-135M's shape beside PEFT's; `args` are for both sides. */
function step(title: string, rows: number, length: number, ...args: string[]): Race {
  const all = ["--rows", String(rows), "--length", String(length), ...args];
  return {
    title: `LoRA step, ${title}, ${rows} x ${length}`,
    ours: ["own-step.ts", ...all],
    peers: { peft: ["peer_step.py", ...all] },
    tokens: rows * length,
    flops: stepFlops({ rows, length }),
  };
}

/** The step with frozen weights in bf16, beside PEFT's with either type of adapters. */
function bf16Step(rows: number): Race {
  const of = step("bf16", rows, 512, "--dtype", "bf16");
  const peer = ["peer_step.py", "--rows", String(rows), "--base", "bf16"] as const;
  return { ...of, peers: { "f32 adapters": peer, "bf16 adapters": [...peer, "--adapters", "bf16"] } };
}

/** A layer beside loralib's and PEFT's; and beside PyTorch's frozen layer alone, where that has a backward. */
function layer(title: string, name: string, flops?: number): Race {
  const beside = name === "embedding" ? ["loralib", "peft"] : ["loralib", "peft", "frozen"];
  return {
    title,
    ours: ["own-layer.ts", name],
    peers: Object.fromEntries(beside.map((peer): [string, Entry] => [peer, ["peer_layer.py", peer, name]])),
    ...(flops === undefined ? {} : { flops }),
  };
}

/** Forward and the gradient of the input of a LoRA linear layer of n x n, rank 16. */
const linearFlops = (tokens: number, n: number): number => 4 * tokens * n * n + 6 * tokens * 16 * 2 * n;

/** Parameters of SmolLM2-135M's shape, the tied table of the vocabulary once. */
const PARAMETERS = 134_515_008;

function generation(dtype: string, bytes: number): Race {
  const args = ["--dtype", dtype];
  return {
    title: `generation, ${dtype}, 64 + 128`,
    ours: ["own-generate.ts", ...args],
    peers: { transformers: ["peer_generate.py", ...args] },
    bytesOfToken: bytes * PARAMETERS,
  };
}

export const RACES: Record<string, Race> = {
  step: step("f32", 1, 512),
  step4: step("f32", 4, 512),
  "step-checkpoint": step("f32, checkpointing", 4, 512, "--checkpointing"),
  "step-bf16": bf16Step(1),
  "step4-bf16": bf16Step(4),
  generate: generation("f32", 4),
  "generate-bf16": generation("bf16", 2),
  linear: layer("Linear 4096 -> 4096, 512 tokens", "linear", linearFlops(512, 4096)),
  linear2048: layer("Linear 4096 -> 4096, 2048 tokens", "linear2048", linearFlops(2048, 4096)),
  embedding: layer("Embedding 49152 x 576, 2048 tokens", "embedding"),
  gpt2: {
    title: "GPT-2 small step, 4 x 256",
    ours: ["own-gpt2.ts"],
    peers: { loralib: ["peer_gpt2.py", "loralib"], peft: ["peer_gpt2.py", "peft"] },
    tokens: 4 * 256,
  },
  conv2d: layer("Conv2d 256 -> 256, 3x3, 8 x 32 x 32", "conv2d"),
};
