/** Rotary position embedding (Su et al. 2021), half-split layout, with tables computed on the host in f64. */
import { tensor } from "../../tensor/create.js";
import type { Device } from "../../device/device.js";
import { session } from "../../native/binding.js";
import { keep } from "../../tensor/scope.js";
import { recordOps, type Tensor } from "../../tensor/tensor.js";
import { computeAmplitude, computeFrequencies, findTurningPoint, type RopeConfig } from "./rope.js";

/** The rotation of one forward pass. */
export interface Rotation {
  /** [positions, D / 2]. */
  readonly cos: Tensor;
  /** [positions, D / 2]. */
  readonly sin: Tensor;
  /** The position of the first row, where `positions` is undefined. */
  readonly offset: number;
  /** i32 [B, T]; undefined where positions are consecutive. */
  readonly positions: Tensor | undefined;
  /** Rotates queries and keys [B, T, H, D], with different numbers of heads, in one pass. */
  apply(q: Tensor, k: Tensor): [q: Tensor, k: Tensor];
}

/** Tables of cos and sin of position · frequency, which grow with the texts. */
export class RotaryTables {
  #cos: Tensor | undefined;
  #sin: Tensor | undefined;
  #positions = 0;

  /**
   * `frequencies` are in radians per position, one per pair of dimensions; `limit` is the model's longest text;
   * `amplitude` is the factor of cos and sin.
   */
  constructor(
    readonly frequencies: Float64Array,
    readonly limit: number,
    readonly amplitude = 1,
  ) {}

  /** Returns the rotation of `rows` rows from `offset`, or at `positions` (i32 [B, T]), all below `end`. */
  selectRotation(
    device: Device,
    offset: number,
    rows: number,
    positions?: Tensor,
    end = positions === undefined ? offset + rows : this.limit,
  ): Rotation {
    this.#grow(device, end);
    const [cos, sin] = [this.#cos as Tensor, this.#sin as Tensor];
    const dims = 2 * this.frequencies.length;
    return {
      cos,
      sin,
      offset,
      positions,
      apply: (q, k) =>
        recordOps(() => session().rotary([q.id, k.id], cos.id, sin.id, offset, positions?.id, dims)) as [
          Tensor,
          Tensor,
        ],
    };
  }

  #grow(device: Device, needed: number): void {
    if (needed <= this.#positions && this.#cos?.device === device) return;
    // Powers of two, so that token-by-token growth rebuilds few tables.
    let positions = 64;
    while (positions < needed) positions *= 2;
    const pairs = this.frequencies.length;
    const [cos, sin] = [new Float32Array(positions * pairs), new Float32Array(positions * pairs)];
    for (let p = 0; p < positions; p++) {
      for (let i = 0; i < pairs; i++) {
        const angle = p * (this.frequencies[i] as number);
        cos[p * pairs + i] = this.amplitude * Math.cos(angle);
        sin[p * pairs + i] = this.amplitude * Math.sin(angle);
      }
    }
    this.dispose();
    const shape = [positions, pairs];
    this.#cos = tensor(cos, { shape, device });
    this.#sin = tensor(sin, { shape, device });
    keep(this.#cos);
    keep(this.#sin);
    this.#positions = positions;
  }

  dispose(): void {
    this.#cos?.dispose();
    this.#sin?.dispose();
    this.#cos = this.#sin = undefined;
    this.#positions = 0;
  }
}

/** The tables of a model, for short and for long texts where LongRoPE distinguishes them. */
export class Rotations {
  readonly #tables: RotaryTables;
  readonly #long: RotaryTables | undefined;
  /** The text length above which other frequencies apply. */
  readonly turningPoint: number;

  constructor(config: { headDim: number; rope: RopeConfig; maxPositionEmbeddings: number }) {
    const { rope, maxPositionEmbeddings: limit } = config;
    const createTables = (length: number): RotaryTables =>
      new RotaryTables(computeFrequencies(config, length), limit, computeAmplitude(rope));
    this.turningPoint = findTurningPoint(rope);
    this.#tables = createTables(0);
    if (this.turningPoint < limit) this.#long = createTables(limit);
  }

  /**
   * Returns the rotation of `rows` rows from `offset`, or at `positions` (i32 [B, T]), all below `end`, the length of
   * the longest text. Keys in a cache keep their rotation: a text that grows past the turning point is not rotated
   * again.
   */
  selectRotation(device: Device, offset: number, rows: number, positions?: Tensor, end?: number): Rotation {
    const tables = (end ?? offset + rows) > this.turningPoint ? (this.#long ?? this.#tables) : this.#tables;
    return tables.selectRotation(device, offset, rows, positions, end);
  }

  dispose(): void {
    this.#tables.dispose();
    this.#long?.dispose();
  }
}
