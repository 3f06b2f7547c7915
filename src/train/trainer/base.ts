/**
 * The part of a `Trainer`'s model that its run does not change. `save: "adapter"` omits it, and a resumed run verifies it
 * by hashes. A tensor of up to 16 MiB is hashed completely, a larger one by 64 pieces of 128 KiB including both ends.
 */
import { createHash } from "node:crypto";

import { tensor as createTensor } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { listLoraLayers } from "../../lora/adapter/registry.js";
import { listTensors } from "../../lora/layers/adapter.js";
import { session } from "../../native/binding.js";
import type { Module } from "../../nn/module.js";
import type { Optimizer } from "../../optim/optimizer.js";
import { countElementBytes } from "../../files/safetensors.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { isBlock, recordOp, type Tensor } from "../../tensor/tensor.js";

/** A tensor that a checkpoint omits. */
export interface BaseTensor {
  name: string;
  shape: readonly number[];
  dtype: string;
  hash: string;
}

/** Whether a value from a file describes a tensor. */
export function isBaseTensor(value: unknown): value is BaseTensor {
  const { name, shape, dtype, hash } = (value ?? {}) as Partial<Record<keyof BaseTensor, unknown>>;
  const sizes = Array.isArray(shape) && shape.every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
  return sizes && [name, dtype, hash].every((field) => typeof field === "string");
}

const WHOLE = 16 << 20;
const PIECES = 64;
const PIECE = 128 << 10;

/** Separates the tensors that a run changes from those that it leaves unchanged. */
export class TrainedParts {
  readonly #model: Module;
  readonly #optimizer: Optimizer;
  /** The tensors of the state when the run began, with the versions of their values. */
  readonly #firstVersions = new Map<Tensor, number>();
  /** The names of the tensors in the checkpoint that the run continues from. */
  readonly #continuedNames: ReadonlySet<string>;
  readonly #hashes = new Map<Tensor, string>();

  constructor(model: Module, optimizer: Optimizer, continued: Iterable<string> = []) {
    this.#model = model;
    this.#optimizer = optimizer;
    this.#continuedNames = new Set(continued);
    for (const tensor of Object.values(model.stateDict()))
      this.#firstVersions.set(tensor, readVersion(tensor));
  }

  /** Splits the state into the tensors that the run changed or trains, and the others. Each tensor is listed once. */
  split(): { trained: Record<string, Tensor>; base: [name: string, tensor: Tensor][] } {
    const trainedTensors = new Set(this.#optimizer.groups.flatMap(({ params }) => params));
    for (const [, layer] of listLoraLayers(this.#model))
      for (const adapter of layer.adapters.values())
        for (const tensor of listTensors(adapter)) trainedTensors.add(tensor);
    const trained: [string, Tensor][] = [];
    const base: [string, Tensor][] = [];
    const seen = new Set<Tensor>();
    for (const [name, tensor] of Object.entries(this.#model.stateDict())) {
      if (seen.has(tensor)) continue;
      seen.add(tensor);
      const changed = this.#firstVersions.get(tensor) !== readVersion(tensor);
      const stored = trainedTensors.has(tensor) || changed || this.#continuedNames.has(name);
      (stored ? trained : base).push([name, tensor]);
    }
    return { trained: Object.fromEntries(trained), base };
  }

  /** Describes the tensors that a checkpoint omits. Each is hashed once, because it does not change. */
  async describe(base: readonly (readonly [name: string, tensor: Tensor])[]): Promise<BaseTensor[]> {
    const found: BaseTensor[] = [];
    for (const [name, tensor] of base) {
      const hash = this.#hashes.get(tensor) ?? (await hashTensor(tensor));
      this.#hashes.set(tensor, hash);
      found.push({ name, shape: tensor.shape, dtype: tensor.dtype, hash });
    }
    return found;
  }
}

/** Throws `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH` or `ERR_OPTION` if the untrained part differs from the checkpoint's. */
export async function checkBase(
  file: string,
  model: Module,
  base: readonly BaseTensor[],
  stored: ReadonlySet<string>,
): Promise<void> {
  const state = model.stateDict();
  const named = new Set(base.map(({ name }) => name));
  const savedTensors = new Set([...stored, ...named].map((name) => state[name]));
  for (const [name, tensor] of Object.entries(state)) {
    // A tensor with two names was written under the first.
    if (!savedTensors.has(tensor))
      throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: the run's model had no ${name}`);
  }
  for (const { name, shape, dtype } of base) {
    const tensor = state[name];
    if (tensor === undefined)
      throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: ${name} of the run's model is missing`);
    if (tensor.shape.join() !== shape.join() || tensor.dtype !== dtype)
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${file}: ${name} was ${dtype} [${shape.join(", ")}] in the run's model, and is ${tensor.dtype} [${tensor.shape.join(", ")}]`,
      );
  }
  for (const { name, hash } of base) {
    if ((await hashTensor(state[name] as Tensor)) !== hash)
      throw new LowrankError(
        "ERR_OPTION",
        `${file}: ${name} has other values than in the run's model, which the checkpoint does not store; load the model that the run began with`,
      );
  }
}

function readVersion(tensor: Tensor): number {
  return session().version(tensor.id);
}

/** Hashes a tensor's values: all of them, or pieces of a large tensor. */
async function hashTensor(tensor: Tensor): Promise<string> {
  const hash = createHash("sha256");
  const sample = noGrad(() => scope(() => sampleTensor(tensor)));
  try {
    const { buffer, byteOffset, byteLength } = await sample.data();
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  } finally {
    if (sample !== tensor) sample.dispose();
  }
  return hash.digest("hex");
}

function sampleTensor(tensor: Tensor): Tensor {
  if (isBlock(tensor.dtype)) return unpackRows(tensor);
  const bytes = countElementBytes(tensor.dtype);
  if (tensor.size * bytes <= WHOLE) return tensor;
  const count = PIECE / bytes;
  const flat = tensor.reshape(tensor.size);
  const [first, ...rest] = Array.from({ length: PIECES }, (_, i) => {
    const start = Math.floor((i * (tensor.size - count)) / (PIECES - 1));
    return flat.slice(0, start, start + count);
  });
  return (first as Tensor).concat(rest, 0);
}

/** Returns rows of a quantised matrix, unpacked, by an embedding, which reads blocks directly. */
function unpackRows(tensor: Tensor): Tensor {
  const [rows = 1, width = 1] = tensor.shape;
  const count = Math.max(1, Math.min(rows, Math.floor(WHOLE / (4 * width))));
  const ids = Int32Array.from({ length: count }, (_, i) =>
    count === 1 ? 0 : Math.floor((i * (rows - 1)) / (count - 1)),
  );
  const indices = createTensor(ids, { device: tensor.device });
  return recordOp(() => session().embedding(tensor.id, indices.id, false, undefined));
}
