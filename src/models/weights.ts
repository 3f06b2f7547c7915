/** The sources of a model's weights: files, checked against the configuration, or random initialisation. */
import { drawNormal, ones, tensor, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import type { WeightsFile } from "../native/binding.js";
import { Conv1d, Conv2d } from "../nn/conv.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { LayerNorm, RMSNorm } from "../nn/norm.js";
import { mapTensor } from "../files/safetensors.js";
import { noGrad, scope } from "../tensor/scope.js";
import { makeParameter, type FloatDType, type Tensor } from "../tensor/tensor.js";
import type { Halved } from "./half-range.js";
import type { Offload } from "./offload.js";
import { isInBlock, type Quantization } from "./quantization.js";

/** The initial values of a tensor: random, constant, or computed from its shape. */
export type Start = "normal" | "ones" | "zeros" | ((shape: readonly number[]) => Float32Array);

interface Drawing {
  /** Whether the weight may be quantised. */
  blocks?: boolean | undefined;
  scale?: number | undefined;
  zeroRow?: number | undefined;
}

export interface LinearLayout {
  /** Whether the weight is stored as [in, out]. */
  fanInFanOut?: boolean | undefined;
  /** The factor of random initial values. */
  scale?: number | undefined;
}

/** Provides the tensors of a model's layers, by transformers' paths. */
export abstract class Weights {
  /** Returns a tensor as a parameter. Random values are multiplied by `scale`, and are 0 in row `zeroRow`. */
  abstract take(name: string, shape: number[], start?: Start, drawing?: Drawing): Tensor;

  /** Whether an optional tensor is present. */
  abstract has(name: string): boolean;

  linear(
    path: string,
    inFeatures: number,
    outFeatures: number,
    bias: boolean,
    { fanInFanOut = false, scale = 1 }: LinearLayout = {},
  ): Linear {
    const shape = fanInFanOut ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
    const weight = this.take(`${path}.weight`, shape, "normal", { scale, blocks: isInBlock(path) });
    const options = bias
      ? { biasValues: this.take(`${path}.bias`, [outFeatures], "zeros") }
      : { bias: false };
    return new Linear(inFeatures, outFeatures, { weight, fanInFanOut, ...options });
  }

  /** Returns an RMSNorm. */
  norm(path: string, size: number, eps: number): RMSNorm {
    return new RMSNorm(size, { eps, weight: this.take(`${path}.weight`, [size], "ones") });
  }

  layerNorm(path: string, size: number, eps: number): LayerNorm {
    const weight = this.take(`${path}.weight`, [size], "ones");
    return new LayerNorm(size, { eps, weight, bias: this.take(`${path}.bias`, [size], "zeros") });
  }

  /** Returns a 1-d convolution with a bias. */
  conv1d(
    path: string,
    inChannels: number,
    outChannels: number,
    kernel: number,
    geometry: { stride?: number; padding: number },
  ): Conv1d {
    const weight = this.take(`${path}.weight`, [outChannels, inChannels, kernel]);
    const biasValues = this.take(`${path}.bias`, [outChannels], "zeros");
    return new Conv1d(inChannels, outChannels, kernel, { ...geometry, weight, biasValues });
  }

  /** Returns a 2-d convolution with a bias, with the kernel's size as stride. */
  patches(path: string, inChannels: number, outChannels: number, kernel: readonly [number, number]): Conv2d {
    const weight = this.take(`${path}.weight`, [outChannels, inChannels, ...kernel]);
    const biasValues = this.take(`${path}.bias`, [outChannels], "zeros");
    return new Conv2d(inChannels, outChannels, kernel, { stride: kernel, weight, biasValues });
  }

  /** Returns an embedding; row `paddingIdx` is initialised to 0. */
  embedding(
    path: string,
    rows: number,
    size: number,
    { paddingIdx, start }: { paddingIdx?: number | undefined; start?: Start | undefined } = {},
  ): Embedding {
    const weight = this.take(`${path}.weight`, [rows, size], start, { zeroRow: paddingIdx });
    return new Embedding(rows, size, { weight, ...(paddingIdx === undefined ? {} : { paddingIdx }) });
  }
}

/** Stored tensors by name. */
export interface TensorSource {
  names(): string[];
  /** Returns the shape of an existing tensor. */
  shape(name: string): number[];
  /** Returns the tensor, frozen, and quantised where requested. */
  tensor(name: string, device: Device, quantize?: Quantization): Tensor;
}

/** Returns the tensors of safetensors files. */
export function listStored(file: WeightsFile): TensorSource {
  return {
    names: () => file.names(),
    shape: (name) => file.info(name).shape,
    tensor: (name, device, quantize) => mapTensor(file, name, device, quantize),
  };
}

/** Tensor names in a family's files. */
export interface Naming {
  /** Ignored, and reported in one notice: buffers of older transformers, heads of other tasks. */
  extras: RegExp;
  /** The prefix of every name except a head's. A file may lack it, or have it where the model does not. */
  prefix: string;
  /** Initialised randomly where a file lacks them, and reported in one notice: heads that a task adds. */
  fresh?: RegExp | undefined;
  /** Returns alternative names of a tensor, such as older ones. */
  older?: ((name: string) => string[]) | undefined;
}

/** A tensor of a file that duplicates another. */
export interface Double {
  name: string;
  /** Reads it on the CPU, memory-mapped. */
  tensor: () => Tensor;
}

/** Takes weights from a file by name, and reports unused and missing ones at the end. */
export class FileWeights extends Weights {
  readonly #usedNames = new Set<string>();
  readonly #names: Set<string>;
  readonly #missing: string[] = [];
  readonly #wrongShapes: string[] = [];
  readonly #drawnNames: string[] = [];
  readonly #draws: FreshWeights;
  /** Tensors that were converted to f16. */
  readonly halved: Halved[] = [];

  constructor(
    private readonly file: TensorSource,
    private readonly naming: Naming,
    private readonly options: {
      device: Device;
      dtype?: FloatDType | undefined;
      /** The quantisation of linear layers in blocks. */
      quantize?: Quantization | undefined;
      /** Keeps the weights of linear layers in blocks on the host. */
      offload?: Offload | undefined;
      /** The file's name in errors and notices. */
      where: string;
      /** Whether a head of another shape is also reinitialised, not only a missing one. */
      otherLabels?: boolean | undefined;
    },
  ) {
    super();
    this.#names = new Set(file.names());
    this.#draws = new FreshWeights(options.device);
  }

  /**
   * Marks a duplicate tensor as used, if the file has it; returns its name in the file, and a function that reads it.
   */
  takeDuplicate(name: string): Double | undefined {
    const found = this.#find(name);
    if (found === undefined) return undefined;
    this.#usedNames.add(found);
    return { name: found, tensor: () => this.file.tensor(found, "cpu") };
  }

  /**
   * Throws if a tensor was missing, had a wrong shape, or was not used. Returns notices about ignored extras and
   * reinitialised tensors.
   */
  finish(): string[] {
    const { where } = this.options;
    if (this.#wrongShapes.length > 0) {
      throw new LowrankError("ERR_SHAPE_MISMATCH", `${where}: ${this.#wrongShapes.slice(0, 3).join("; ")}`);
    }
    const left = [...this.#names].filter((name) => !this.#usedNames.has(name));
    const extras = left.filter((name) => this.naming.extras.test(name));
    const unexpected = left.filter((name) => !this.naming.extras.test(name));
    const parts = [
      this.#missing.length > 0 ? `missing: ${listSome(this.#missing)}` : "",
      unexpected.length > 0 ? `not of this model: ${listSome(unexpected)}` : "",
    ].filter(Boolean);
    if (parts.length > 0) throw new LowrankError("ERR_UNMATCHED_KEY", `${where}: ${parts.join("; ")}`);
    const notices: string[] = [];
    if (extras.length > 0) {
      const few = extras.slice(0, 3).join(", ") + (extras.length > 3 ? ", …" : "");
      notices.push(`${where}: ignored ${extras.length} unused tensors: ${few}`);
    }
    if (this.#drawnNames.length > 0) {
      notices.push(
        `${where}: has no weights for ${listSome(this.#drawnNames)}; they are initialised randomly and need training`,
      );
    }
    return notices;
  }

  override has(name: string): boolean {
    return this.#find(name) !== undefined;
  }

  override take(name: string, shape: number[], start: Start = "normal", drawing: Drawing = {}): Tensor {
    const found = this.#find(name);
    const isNew = this.naming.fresh?.test(name) ?? false;
    if (found === undefined) {
      if (isNew) return this.#draw(name, shape, start, drawing);
      this.#missing.push(name);
      return createPlaceholder(shape);
    }
    this.#usedNames.add(found);
    const statedShape = this.file.shape(found);
    if (statedShape.join() !== shape.join()) {
      if (isNew && this.options.otherLabels === true) return this.#draw(name, shape, start, drawing);
      this.#wrongShapes.push(
        `${found} is [${statedShape.join(", ")}], the configuration expects [${shape.join(", ")}]`,
      );
      return createPlaceholder(shape);
    }
    const offload = drawing.blocks === true ? this.options.offload : undefined;
    const read = this.#read(name, found, offload?.host ?? this.options.device, drawing);
    // Frozen, but still a parameter, so that it is counted and saved.
    const weight = makeParameter(offload?.place(name, read.tensor) ?? read.tensor, false);
    const { original } = read;
    if (original !== undefined) this.halved.push({ name: found, stored: weight, original });
    return weight;
  }

  /** Reads a tensor in the storage of the options. `original` reads a tensor that was converted to f16 again. */
  #read(
    name: string,
    found: string,
    device: Device,
    drawing: Drawing,
  ): { tensor: Tensor; original?: () => Tensor } {
    const { quantize } = this.options;
    if (quantize !== undefined && drawing.blocks === true)
      return { tensor: this.file.tensor(found, device, quantize) };
    // Biases are small, and are added in f32.
    const dtype = name.endsWith(".bias") ? "f32" : this.options.dtype;
    const stored = this.file.tensor(found, device);
    if (dtype === undefined || dtype === stored.dtype) return { tensor: stored };
    const converted = stored.to(dtype);
    stored.dispose();
    if (dtype !== "f16") return { tensor: converted };
    return { tensor: converted, original: () => this.file.tensor(found, this.options.device) };
  }

  /** Finds a tensor's name in the file: with or without the family's prefix, under its current or an older name. */
  #find(name: string): string | undefined {
    const { prefix, older } = this.naming;
    const other = name.startsWith(prefix) ? name.slice(prefix.length) : prefix + name;
    const spellings = [name, other].flatMap((spelling) => [spelling, ...(older?.(spelling) ?? [])]);
    return spellings.find((spelling) => this.#names.has(spelling));
  }

  #draw(name: string, shape: number[], start: Start, drawing: Drawing): Tensor {
    this.#drawnNames.push(name);
    const values = this.#draws.take(name, shape, start, drawing);
    values.requiresGrad = false;
    return values;
  }
}

/** Stands in for a missing tensor until `finish` reports it; it has a shape and no memory. */
function createPlaceholder(shape: readonly number[]): Tensor {
  return zeros(shape, { device: "meta:cpu" });
}

/** Random weights as in transformers: N(0, deviation²), norms 1, biases 0. */
export class FreshWeights extends Weights {
  /** Biases are always f32. Parameters require gradients only where all of them are f32. */
  constructor(
    private readonly device: Device,
    private readonly deviation = 0.02,
    private readonly dtype: FloatDType = "f32",
  ) {
    super();
  }

  override has(): boolean {
    return true;
  }

  override take(
    name: string,
    shape: number[],
    start: Start = "normal",
    { scale = 1, zeroRow }: Drawing = {},
  ): Tensor {
    const { device } = this;
    const dtype = name.endsWith(".bias") ? "f32" : this.dtype;
    const values = noGrad(() =>
      scope(() => {
        if (typeof start === "function") return tensor(start(shape), { shape, device }).to(dtype);
        if (start !== "normal") return (start === "ones" ? ones : zeros)(shape, { device, dtype });
        const wide = drawNormal(shape, this.deviation * scale, { device });
        return (zeroRow === undefined ? wide : insertZeroRow(wide, zeroRow)).to(dtype);
      }),
    );
    return makeParameter(values, this.dtype === "f32");
  }
}

function insertZeroRow(table: Tensor, row: number): Tensor {
  const [rows, size] = table.shape as [number, number];
  const between = zeros([1, size], { device: table.device });
  return table.slice(0, 0, row).concat([between, table.slice(0, row + 1, rows)], 0);
}

function listSome(names: string[]): string {
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}
