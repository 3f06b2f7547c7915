/** Weights that the host keeps, and that a device has only while their block is used. */
import type { Device } from "../device/device.js";
import { native, session, type OffloadedWeights } from "../native/binding.js";
import { type Tensor, wrapHandle } from "../tensor/tensor.js";

/** The bytes of offloaded weights. */
export interface OffloadedBytes {
  /** Weights that are read from the model's file at each use. */
  inFile: number;
  /** Weights that host memory keeps, since they were converted or quantised. */
  inMemory: number;
}

/** The offloaded weights of a model, by block. */
export class Offload {
  readonly #weights: OffloadedWeights = native().Offload.create();
  /** The number of each block, by its path. Blocks are built in the order in which forward runs them. */
  readonly #blocks = new Map<string, number>();

  constructor(private readonly device: Exclude<Device, "auto">) {}

  /** The device on which weights are read and converted. */
  get host(): Exclude<Device, "auto"> {
    return this.device.startsWith("meta:") ? "meta:cpu" : "cpu";
  }

  /** Returns the tensor at `path`, which is on the host, as an offloaded tensor of the device; frees the given one. */
  place(path: string, tensor: Tensor): Tensor {
    const block = /^.*?\.\d+(?=\.)/.exec(path)?.[0] ?? path;
    if (!this.#blocks.has(block)) this.#blocks.set(block, this.#blocks.size);
    const number = this.#blocks.get(block) as number;
    try {
      return wrapHandle(session().offload(tensor.id, this.device, this.#weights, number));
    } finally {
      tensor.dispose();
    }
  }

  /** The bytes of all offloaded weights. */
  get bytes(): OffloadedBytes {
    return { inFile: this.#weights.mappedBytes(), inMemory: this.#weights.copiedBytes() };
  }

  /** The bytes of the weights that are on the device now. */
  get residentBytes(): number {
    return this.#weights.residentBytes();
  }
}
