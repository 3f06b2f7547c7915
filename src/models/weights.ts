/** Where a model's weights come from: found in a file and checked against the configuration, or drawn anew. */
import { normal, ones, tensor, zeros } from "../create.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import type { WeightsFile } from "../native.js";
import { Conv1d, Conv2d } from "../nn/conv.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { LayerNorm, RMSNorm } from "../nn/norm.js";
import { mapped } from "../safetensors.js";
import { noGrad, scope } from "../scope.js";
import { parameter, type FloatDType, type Tensor } from "../tensor.js";
import type { Halved } from "./half-range.js";
import { isInBlock, type Quantization } from "./quantization.js";

/** How a tensor starts where none is given: drawn, or by the values of its shape. */
export type Start = "normal" | "ones" | "zeros" | ((shape: readonly number[]) => Float32Array);

interface Drawing {
  /** Whether it is a weight that may be quantised. */
  blocks?: boolean | undefined;
  scale?: number | undefined;
  zeroRow?: number | undefined;
}

export interface LinearLayout {
  /** Whether the weight is stored as [in, out]. */
  fanInFanOut?: boolean | undefined;
  /** What a drawn weight is multiplied by. */
  scale?: number | undefined;
}

/** Gives each layer of a model its tensors, by transformers' paths. */
export abstract class Weights {
  /** One tensor, as a parameter; what is drawn anew is multiplied by `scale`, and is 0 in row `zeroRow`. */
  abstract take(name: string, shape: number[], start?: Start, more?: Drawing): Tensor;

  /** Whether a tensor that a model may do without is there. */
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

  /** The scale of an RMSNorm. */
  norm(path: string, size: number, eps: number): RMSNorm {
    return new RMSNorm(size, { eps, weight: this.take(`${path}.weight`, [size], "ones") });
  }

  layerNorm(path: string, size: number, eps: number): LayerNorm {
    const weight = this.take(`${path}.weight`, [size], "ones");
    return new LayerNorm(size, { eps, weight, bias: this.take(`${path}.bias`, [size], "zeros") });
  }

  /** A convolution with a bias over one dimension. */
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

  /** A convolution with a bias, whose stride is its kernel. */
  patches(path: string, inChannels: number, outChannels: number, kernel: readonly [number, number]): Conv2d {
    const weight = this.take(`${path}.weight`, [outChannels, inChannels, ...kernel]);
    const biasValues = this.take(`${path}.bias`, [outChannels], "zeros");
    return new Conv2d(inChannels, outChannels, kernel, { stride: kernel, weight, biasValues });
  }

  /** Row `paddingIdx` starts as 0, where one is given. */
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

/** Tensors by name, as they are stored. */
export interface TensorSource {
  names(): string[];
  /** Of a tensor that is there. */
  shape(name: string): number[];
  /** The tensor, frozen; quantised where that is asked for. */
  tensor(name: string, device: Device, quantize?: Quantization): Tensor;
}

/** Those of safetensors files. */
export function storedIn(file: WeightsFile): TensorSource {
  return {
    names: () => file.names(),
    shape: (name) => file.info(name).shape,
    tensor: (name, device, quantize) => mapped(file, name, device, quantize),
  };
}

/** How a family's files spell their names. */
export interface Naming {
  /** Passed over, and named once in a notice: buffers of older transformers, heads of other tasks. */
  extras: RegExp;
  /** What goes before every name but a head's. A file may lack it, or have it where the model has none. */
  prefix: string;
  /** Drawn anew where a file lacks them, and named once in a notice: heads that a task adds. */
  fresh?: RegExp | undefined;
  /** Other names of a tensor, such as those of older files. */
  older?: ((name: string) => string[]) | undefined;
}

/** A tensor of a file that stands for another. */
export interface Double {
  name: string;
  /** On the cpu, where it stays in the file. */
  tensor: () => Tensor;
}

/** Takes weights from a file by name, and knows at the end what was left or missing. */
export class FileWeights extends Weights {
  readonly #used = new Set<string>();
  readonly #names: Set<string>;
  readonly #missing: string[] = [];
  readonly #wrongShapes: string[] = [];
  readonly #drawn: string[] = [];
  readonly #draws: FreshWeights;
  /** What was converted to f16. */
  readonly halved: Halved[] = [];

  constructor(
    private readonly file: TensorSource,
    private readonly naming: Naming,
    private readonly options: {
      device: Device;
      dtype?: FloatDType | undefined;
      /** What weights of linear layers in blocks are quantised to. */
      quantize?: Quantization | undefined;
      /** What errors and notices call the file. */
      where: string;
      /** Whether a fresh name that is there in another shape is drawn anew too. */
      otherLabels?: boolean | undefined;
    },
  ) {
    super();
    this.#names = new Set(file.names());
    this.#draws = new FreshWeights(options.device);
  }

  /** Leaves out a tensor that stands for another, if the file has it: gives its name there, and the tensor when asked. */
  double(name: string): Double | undefined {
    const found = this.#find(name);
    if (found === undefined) return undefined;
    this.#used.add(found);
    return { name: found, tensor: () => this.file.tensor(found, "cpu") };
  }

  /**
   * Throws when a tensor was missing, had a wrong shape, or was not asked for; returns what there
   * is to tell of known extras and of what was drawn anew.
   */
  finish(): string[] {
    const { where } = this.options;
    if (this.#wrongShapes.length > 0) {
      throw new LowrankError("ERR_SHAPE_MISMATCH", `${where}: ${this.#wrongShapes.slice(0, 3).join("; ")}`);
    }
    const left = [...this.#names].filter((name) => !this.#used.has(name));
    const extras = left.filter((name) => this.naming.extras.test(name));
    const unexpected = left.filter((name) => !this.naming.extras.test(name));
    const parts = [
      this.#missing.length > 0 ? `missing: ${some(this.#missing)}` : "",
      unexpected.length > 0 ? `not of this model: ${some(unexpected)}` : "",
    ].filter(Boolean);
    if (parts.length > 0) throw new LowrankError("ERR_UNMATCHED_KEY", `${where}: ${parts.join("; ")}`);
    const notices: string[] = [];
    if (extras.length > 0) {
      const few = extras.slice(0, 3).join(", ") + (extras.length > 3 ? ", …" : "");
      notices.push(`${where}: passed over ${extras.length} tensors that this model does not use: ${few}`);
    }
    if (this.#drawn.length > 0) {
      notices.push(`${where}: has no weights for ${some(this.#drawn)}; they start anew and need training`);
    }
    return notices;
  }

  override has(name: string): boolean {
    return this.#find(name) !== undefined;
  }

  override take(name: string, shape: number[], start: Start = "normal", more: Drawing = {}): Tensor {
    const found = this.#find(name);
    const fresh = this.naming.fresh?.test(name) ?? false;
    if (found === undefined) {
      if (fresh) return this.#draw(name, shape, start, more);
      this.#missing.push(name);
      return placeholder(shape);
    }
    this.#used.add(found);
    const stated = this.file.shape(found);
    if (stated.join() !== shape.join()) {
      if (fresh && this.options.otherLabels === true) return this.#draw(name, shape, start, more);
      this.#wrongShapes.push(
        `${found} is [${stated.join(", ")}], the configuration makes it [${shape.join(", ")}]`,
      );
      return placeholder(shape);
    }
    const { device, quantize } = this.options;
    if (quantize !== undefined && more.blocks === true)
      return parameter(this.file.tensor(found, device, quantize), false);
    // Biases are added in f32, and are few.
    const dtype = name.endsWith(".bias") ? "f32" : this.options.dtype;
    const stored = this.file.tensor(found, device);
    // Frozen, and a parameter all the same: it is counted, and saved.
    if (dtype === undefined || dtype === stored.dtype) return parameter(stored, false);
    const converted = stored.to(dtype);
    stored.dispose();
    if (dtype === "f16") {
      const original = (): Tensor => this.file.tensor(found, device);
      this.halved.push({ name: found, stored: converted, original });
    }
    return parameter(converted, false);
  }

  /** A name as the file has it: with the family's prefix or without, as it is or as it once was. */
  #find(name: string): string | undefined {
    const { prefix, older } = this.naming;
    const other = name.startsWith(prefix) ? name.slice(prefix.length) : prefix + name;
    const spellings = [name, other].flatMap((one) => [one, ...(older?.(one) ?? [])]);
    return spellings.find((one) => this.#names.has(one));
  }

  #draw(name: string, shape: number[], start: Start, more: Drawing): Tensor {
    this.#drawn.push(name);
    const drawn = this.#draws.take(name, shape, start, more);
    drawn.requiresGrad = false;
    return drawn;
  }
}

/** Stands for a tensor that is not there until `finish` says so; it has a shape, and no memory. */
function placeholder(shape: readonly number[]): Tensor {
  return zeros(shape, { device: "meta:cpu" });
}

/** Weights drawn anew, as transformers initialises its models: N(0, deviation²), norms 1, biases 0. */
export class FreshWeights extends Weights {
  /** Biases are f32 in any case. Parameters ask for gradients where all are. */
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
    const drawn = noGrad(() =>
      scope(() => {
        if (typeof start === "function") return tensor(start(shape), { shape, device }).to(dtype);
        if (start !== "normal") return (start === "ones" ? ones : zeros)(shape, { device, dtype });
        const wide = normal(shape, this.deviation * scale, { device });
        return (zeroRow === undefined ? wide : withZeroRow(wide, zeroRow)).to(dtype);
      }),
    );
    return parameter(drawn, this.dtype === "f32");
  }
}

function withZeroRow(table: Tensor, row: number): Tensor {
  const [rows, size] = table.shape as [number, number];
  const between = zeros([1, size], { device: table.device });
  return table.slice(0, 0, row).concat([between, table.slice(0, row + 1, rows)], 0);
}

function some(names: string[]): string {
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}
