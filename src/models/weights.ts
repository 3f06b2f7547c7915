/** A family's weights: found in a file and checked against what the configuration says, or drawn anew. */
import { ones, tensor, zeros } from "../create.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { RMSNorm } from "../nn/norm.js";
import { normal } from "../random.js";
import { mapped, type WeightsFile } from "../safetensors.js";
import { parameter, type DType, type Tensor } from "../tensor.js";
import type { LlamaWeights } from "./llama/model.js";

/** Names that a family's files are known to carry besides its weights. */
export interface Extras {
  /** Passed over, and named once in a notice. */
  known: RegExp;
  /** A prefix that a file may lack, when it was saved from the model without its head. */
  prefix: string;
}

/** Takes weights from a file by path, and knows at the end what was left or missing. */
export class FileWeights implements LlamaWeights {
  readonly #used = new Set<string>();
  readonly #names: Set<string>;
  readonly #problems: string[] = [];
  readonly #wrongShapes: string[] = [];

  constructor(
    private readonly file: WeightsFile,
    private readonly device: Device,
    private readonly dtype: DType | undefined,
    private readonly extras: Extras,
    private readonly where: string,
  ) {
    this.#names = new Set(file.names());
  }

  linear(path: string, inFeatures: number, outFeatures: number, bias: boolean): Linear {
    const weight = this.#take(`${path}.weight`, [outFeatures, inFeatures]);
    const options = bias ? { biasValues: this.#take(`${path}.bias`, [outFeatures]) } : { bias: false };
    return new Linear(inFeatures, outFeatures, { weight, ...options });
  }

  norm(path: string, size: number, eps: number): RMSNorm {
    return new RMSNorm(size, { eps, weight: this.#take(`${path}.weight`, [size]) });
  }

  embedding(path: string, rows: number, size: number): Embedding {
    return new Embedding(rows, size, { weight: this.#take(`${path}.weight`, [rows, size]) });
  }

  /** Whether the file has a name that the model may do without. */
  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** Marks a name as used. */
  pass(name: string): void {
    this.#used.add(name);
  }

  /**
   * Throws when a tensor was missing, had a wrong shape, or was not asked for; returns the known
   * extras that were passed over.
   */
  finish(): string[] {
    if (this.#wrongShapes.length > 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${this.where}: ${this.#wrongShapes.slice(0, 3).join("; ")}`,
      );
    }
    const left = [...this.#names].filter((name) => !this.#used.has(name));
    const extras = left.filter((name) => this.extras.known.test(name));
    const unexpected = left.filter((name) => !this.extras.known.test(name));
    const parts = [
      this.#problems.length > 0 ? `missing: ${some(this.#problems)}` : "",
      unexpected.length > 0 ? `not of this model: ${some(unexpected)}` : "",
    ].filter(Boolean);
    if (parts.length > 0) throw new LowrankError("ERR_UNMATCHED_KEY", `${this.where}: ${parts.join("; ")}`);
    return extras;
  }

  #take(path: string, shape: number[]): Tensor {
    const bare = path.startsWith(this.extras.prefix) ? path.slice(this.extras.prefix.length) : path;
    const name = this.#names.has(path) ? path : bare;
    if (!this.#names.has(name)) {
      this.#problems.push(path);
      return placeholder(this.device);
    }
    this.#used.add(name);
    const info = this.file.info(name);
    if (info.shape.join() !== shape.join()) {
      this.#wrongShapes.push(
        `${name} is [${info.shape.join(", ")}], the configuration makes it [${shape.join(", ")}]`,
      );
      return placeholder(this.device);
    }
    const stored = mapped(this.file, name, this.device);
    // Frozen, and a parameter all the same: it is counted, and saved.
    if (this.dtype === undefined || this.dtype === stored.dtype) return parameter(stored, false);
    const converted = stored.to(this.dtype);
    stored.dispose();
    return parameter(converted, false);
  }
}

/** Stands for a tensor that is not there until `finish` says so. */
function placeholder(device: Device): Tensor {
  return zeros([1], { device });
}

/** Weights drawn anew, as transformers initialises Llama: N(0, 0.02²), norms 1, biases 0. */
export class FreshWeights implements LlamaWeights {
  constructor(
    private readonly device: Device,
    private readonly deviation = 0.02,
  ) {}

  linear(_path: string, inFeatures: number, outFeatures: number, bias: boolean): Linear {
    const weight = this.#draw([outFeatures, inFeatures]);
    const options = bias
      ? { biasValues: parameter(zeros([outFeatures], { device: this.device })) }
      : { bias: false };
    return new Linear(inFeatures, outFeatures, { weight, ...options });
  }

  norm(_path: string, size: number, eps: number): RMSNorm {
    return new RMSNorm(size, { eps, weight: parameter(ones([size], { device: this.device })) });
  }

  embedding(_path: string, rows: number, size: number): Embedding {
    return new Embedding(rows, size, { weight: this.#draw([rows, size]) });
  }

  #draw(shape: number[]): Tensor {
    const values = normal(shape.reduce((n, d) => n * d, 1));
    for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * this.deviation;
    return parameter(tensor(values, { shape, device: this.device }));
  }
}

function some(names: string[]): string {
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}
