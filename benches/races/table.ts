/** The races, one line each. */
import { stepFlops } from "./flops.js";
import { SHAPES } from "./shapes.js";
import { GGUF, MODEL, UNPACKED, type Entry } from "./side.js";

export interface Race {
  title: string;
  ours: Entry;
  peers: Record<string, Entry>;
  /** Sides that start a new process for every turn. */
  cold?: readonly string[];
  /** Tokens per turn, for a rate. */
  tokens?: number;
  /** The minimum floating-point operations of a turn. */
  flops?: number;
  /** The products for the reference rate; by default the products of a step of SmolLM2-135M's shape. */
  products?: readonly string[];
  /** Bytes of weights read per decoded token. */
  bytesOfToken?: number;
}

/** A training step of SmolLM2-135M's shape, compared with PEFT; `args` are for both sides. */
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

/** The step with frozen weights in bf16, compared with PEFT with either type of adapters. */
function bf16Step(rows: number, shape: keyof typeof SHAPES = "smollm2-135m"): Race {
  const title = shape === "smollm2-135m" ? "bf16" : `bf16, ${shape}`;
  const of = step(title, rows, 512, "--dtype", "bf16", "--shape", shape);
  const peer = ["peer_step.py", "--rows", String(rows), "--base", "bf16", "--shape", shape] as const;
  return {
    ...of,
    flops: stepFlops({ rows, length: 512, shape }),
    peers: { "f32 adapters": peer, "bf16 adapters": [...peer, "--adapters", "bf16"] },
  };
}

/** A layer, compared with loralib's and PEFT's; and with PyTorch's frozen layer alone, if that has a backward. */
function layer(title: string, name: string, of: Pick<Race, "flops" | "products"> = {}): Race {
  const beside = name === "embedding" ? ["loralib", "peft"] : ["loralib", "peft", "frozen"];
  return {
    title,
    ours: ["own-layer.ts", name],
    peers: Object.fromEntries(beside.map((peer): [string, Entry] => [peer, ["peer_layer.py", peer, name]])),
    ...of,
  };
}

/** Forward and backward of a LoRA linear layer of n × n, rank 16, with a frozen weight. */
const linearFlops = (tokens: number, n: number): number => 4 * tokens * n * n + 6 * tokens * 16 * 2 * n;

const ofLinear = (tokens: number, n: number): Pick<Race, "flops" | "products"> => ({
  flops: linearFlops(tokens, n),
  products: [`${tokens}x${n}x${n}`],
});

/** Parameters of SmolLM2-135M's shape; the tied embedding counts once. */
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

/** A step over SmolLM2-135M-Instruct in Q4_1, compared with a step over its weights in f32. */
function quantisedStep(title: string, ...args: string[]): Race {
  return {
    title: `LoRA step over Q4_1, rank 8 on q and v, 1 x 512${title}`,
    ours: ["own-gguf-step.mjs", GGUF, ...args],
    peers: { "f32 folder": ["own-gguf-step.mjs", UNPACKED, ...args] },
    cold: ["ours", "f32 folder"],
  };
}

/** Compared with burn's native backend. */
function burn(title: string, what: string, flops?: number): Race {
  return {
    title,
    ours: ["own-block.ts", what],
    peers: { burn: ["burn", what] },
    ...(flops === undefined ? {} : { flops }),
  };
}

export const RACES: Record<string, Race> = {
  step: step("f32", 1, 512),
  step4: step("f32", 4, 512),
  "step-checkpoint": step("f32, checkpointing", 4, 512, "--checkpointing"),
  char: {
    title: "user-defined character transformer, 16 x 64",
    ours: ["own-char.ts"],
    peers: { torch: ["peer_char.py"] },
    tokens: 16 * 64,
  },
  "step-bf16": bf16Step(1),
  "step4-bf16": bf16Step(4),
  "step-1b-bf16": bf16Step(1, "llama-3.2-1b"),
  generate: generation("f32", 4),
  "generate-bf16": generation("bf16", 2),
  gguf: {
    title: "SmolLM2-135M-Instruct in Q4_1, 512 + 96",
    ours: ["own-gguf.mjs", GGUF],
    peers: { "llama.cpp": ["peer_llama.py", GGUF] },
    bytesOfToken: 66_355_200 + 30_081_024,
  },
  "gguf-step": quantisedStep(""),
  "gguf-step-checkpoint": quantisedStep(", checkpointing", "--checkpointing"),
  start: {
    title: "process start to the end of the first step, f32, 1 x 512",
    ours: ["own-start.mjs", MODEL],
    peers: { peft: ["peer_start.py", MODEL] },
    cold: ["ours", "peft"],
  },
  import: { title: "import of the built package", ours: ["own-import.mjs"], peers: {}, cold: ["ours"] },
  linear: layer("Linear 4096 -> 4096, 512 tokens", "linear", ofLinear(512, 4096)),
  linear2048: layer("Linear 4096 -> 4096, 2048 tokens", "linear2048", ofLinear(2048, 4096)),
  embedding: layer("Embedding 49152 x 576, 2048 tokens", "embedding"),
  gpt2: {
    title: "GPT-2 small step, 4 x 256",
    ours: ["own-gpt2.ts"],
    peers: { loralib: ["peer_gpt2.py", "loralib"], peft: ["peer_gpt2.py", "peft"] },
    tokens: 4 * 256,
  },
  conv2d: layer("Conv2d 256 -> 256, 3x3, 8 x 32 x 32", "conv2d"),
  qvac: {
    title: "LoRA step, 8 layers, 1 x 512, compared with QVAC (f16 weights)",
    ours: ["own-step.ts", "--layers", "8"],
    peers: { qvac: ["qvac"] },
    cold: ["qvac"],
    tokens: 512,
    flops: stepFlops({ rows: 1, length: 512, layers: 8 }),
  },
  "burn-product": burn("product, 1024 x 1024 x 1024", "product", 2 * 1024 ** 3),
  "burn-linear": burn("LoRA linear 1024 -> 1024, 1024 tokens", "linear", linearFlops(1024, 1024)),
  "burn-block": burn("block of SmolLM2 with adapters, 512 tokens", "block"),
};
