/** Ways to reduce the memory of a run that does not fit, the least harmful first. */
import { resolveDevice } from "../../device/device.js";
import { isGguf } from "../../gguf/read.js";
import { movesBase } from "../../lora/options/init-weights.js";
import type { Quantization } from "../../models/quantization.js";
import type { StorageType } from "../options.js";
import type { Settings } from "../settings.js";
import type { Keepable } from "../changeable.js";

/** Options of `finetune` that take less memory. Absent options keep their values. */
export interface Suggestion {
  /** Whether backward recomputes activations. */
  gradientCheckpointing?: boolean;
  /** Rows per batch. */
  batchSize?: number;
  /** Batches per optimizer step. */
  gradientAccumulation?: number;
  /** The storage type of the weights. */
  dtype?: StorageType | undefined;
  /** The quantisation of the blocks' linear layers. */
  quantize?: Quantization | undefined;
  /** Whether the host keeps the weights of the blocks, and a GPU has the weights of two blocks at a time. */
  offloadWeights?: boolean;
  /** The maximum number of tokens in a row. */
  maxLength?: number;
}

export type Changes = Suggestion;

/** Settings that take less memory, and the cost of each change. */
export interface Choice {
  changes: Changes;
  /** A phrase for each kind of change. */
  costs: string[];
}

/** Properties of a run that limit its choices. */
export interface Known {
  /** The model's path; undefined for a loaded model, whose storage cannot change. */
  path: string | undefined;
  /** The number of tokens in the longest row. */
  length: number;
  /** Whether the run is resumed, so that its results must not change. */
  resumed: boolean;
  /** Options that must not change. */
  kept: readonly Keepable[];
}

/** The shortest row length that is tried. */
const SHORTEST = 16;

const OFFLOADED = "weights of the blocks on the host: the same losses, and steps take longer";

/**
 * Yields choices in the order in which they are tried, each in addition to the earlier kinds: gradient checkpointing,
 * smaller batches with more accumulation, storage with fewer bits, offloaded weights, shorter rows. Offloading is tried
 * with each storage, and each length is tried without it first.
 */
export function* listChoices(settings: Settings, { path, length, resumed, kept }: Known): Generator<Choice> {
  const open = (name: Keepable): boolean => !kept.includes(name);
  let last: Choice = { changes: {}, costs: [] };
  const next = (changes: Changes, ...costs: string[]): Choice => ({
    changes: { ...last.changes, ...changes },
    costs: [...last.costs, ...costs],
  });
  if (!settings.gradientCheckpointing && open("gradientCheckpointing"))
    yield (last = next({ gradientCheckpointing: true }, "gradient checkpointing: about a third more time"));
  const offloads = open("offloadWeights") && path !== undefined && canOffload(settings);
  const offload = (): Choice => next({ offloadWeights: true }, OFFLOADED);
  if (resumed) {
    if (offloads) yield offload();
    return;
  }
  const before = last;
  for (const changes of listSmallerBatches(settings)) {
    const { batchSize, gradientAccumulation } = changes;
    last = before;
    yield (last = next(
      changes,
      `batches of ${batchSize} × ${gradientAccumulation}: the same steps, in more and smaller products`,
    ));
  }
  const storages = [last];
  if (path !== undefined) {
    const unstored = last;
    for (const { changes, costs } of listStorages(settings, path, open)) {
      last = unstored;
      yield (last = next(changes, costs));
      storages.push(last);
    }
  }
  for (const storage of offloads ? storages : []) {
    last = storage;
    yield offload();
  }
  if (!open("maxLength")) return;
  const long = storages.at(-1) as Choice;
  for (const maxLength of listShorterLengths(length)) {
    last = long;
    yield (last = next({ maxLength }, `rows of at most ${maxLength} tokens: longer rows are truncated`));
    if (offloads) yield offload();
  }
}

/** Whether a run may offload weights, and some of its devices gain by it. */
function canOffload({ offloadWeights, devices, lora }: Settings): boolean {
  return (
    !offloadWeights &&
    devices.some((device) => resolveDevice(device) !== "cpu") &&
    !movesBase(lora.initLoraWeights ?? true)
  );
}

/** Yields batch sizes that divide a step evenly, the largest first. */
function* listSmallerBatches({ batchSize, gradientAccumulation }: Settings): Generator<{
  batchSize: number;
  gradientAccumulation: number;
}> {
  const rows = batchSize * gradientAccumulation;
  for (let size = batchSize - 1; size >= 1; size--)
    if (rows % size === 0) yield { batchSize: size, gradientAccumulation: rows / size };
}

/** The approximate number of bits per weight. */
const BITS: Record<StorageType | Quantization, number> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  q8_0: 8.5,
  q4_0: 4.5,
  q4_k: 4.5,
  nf4: 4.13,
};

const ROUNDING = {
  bf16: "weights in bf16: each is rounded to 8 bits of precision",
  q8_0: "layers quantised to q8_0: each weight is rounded to 8 bits",
  nf4: "layers quantised to nf4: each weight is rounded to 4 bits, which costs some quality",
} as const;

/** Yields storage formats with fewer bits than requested. */
function* listStorages(
  { dtype, quantize }: Settings,
  path: string,
  open: (name: Keepable) => boolean,
): Generator<{ changes: Changes; costs: string }> {
  // A GGUF file's quantisation is fixed.
  if (isGguf(path)) return;
  const rest = BITS[dtype ?? "f32"];
  const bits = quantize === undefined ? rest : BITS[quantize];
  const [half, halved] = [dtype === "f16" ? "f16" : "bf16", open("dtype")] as const;
  if (halved && rest > BITS.bf16 && (bits > BITS.bf16 || !open("quantize")))
    yield { changes: { dtype: "bf16" }, costs: ROUNDING.bf16 };
  if (!open("quantize")) return;
  for (const kind of ["q8_0", "nf4"] as const) {
    if (bits <= BITS[kind]) continue;
    yield {
      changes: { ...(halved && { dtype: half }), quantize: kind },
      costs: `${ROUNDING[kind]}; the rest in ${halved ? half : dtype}`,
    };
  }
}

/** Yields lengths that shrink to 3/4, 1/2, 3/8, 1/4, … of `length`. */
function* listShorterLengths(length: number): Generator<number> {
  for (let shorter = length; shorter > SHORTEST; shorter /= 2) {
    for (const share of [3 / 4, 1 / 2]) {
      const next = Math.floor(shorter * share);
      if (next >= SHORTEST) yield next;
    }
  }
}
