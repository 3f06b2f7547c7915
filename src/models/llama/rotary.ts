/** Rotary position embedding (Su et al. 2021), half-split layout: tables made on the host in f64. */
import { tensor } from "../../create.js";
import type { Device } from "../../device.js";
import { session } from "../../native.js";
import { keep } from "../../scope.js";
import { madeAll, type Tensor } from "../../tensor.js";
import { ropeAmplitude, ropeFrequencies, ropeTurningPoint, type RopeConfig } from "./rope.js";

/** The rotation of one forward. */
export interface Rotation {
  /** [positions, D / 2]. */
  readonly cos: Tensor;
  /** [positions, D / 2]. */
  readonly sin: Tensor;
  /** Where the first row stands, unless positions are given. */
  readonly offset: number;
  /** i32 [B, T]; undefined where rows follow one another. */
  readonly positions: Tensor | undefined;
  /** Queries and keys [B, T, H, D], which differ in heads alone, turned in one pass. */
  apply(q: Tensor, k: Tensor): [q: Tensor, k: Tensor];
}

/** cos and sin of position · frequency, grown as longer texts come. */
export class RotaryTables {
  #cos: Tensor | undefined;
  #sin: Tensor | undefined;
  #positions = 0;

  /**
   * `frequencies` are radians a position, one a pair of dimensions; `limit` is the model's longest
   * text; cos and sin are multiplied by `amplitude`.
   */
  constructor(
    readonly frequencies: Float64Array,
    readonly limit: number,
    readonly amplitude = 1,
  ) {}

  /** The rotation of rows at `offset` and on, or at given `positions` (i32 [B, T]), all below `end`. */
  rotation(
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
        madeAll(() => session().rotary([q.id, k.id], cos.id, sin.id, offset, positions?.id, dims)) as [
          Tensor,
          Tensor,
        ],
    };
  }

  #grow(device: Device, needed: number): void {
    if (needed <= this.#positions && this.#cos?.device === device) return;
    // Powers of two, so that growing token by token makes few tables.
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

/** The tables of a model, by the length of a text where that has a say. */
export class Rotations {
  readonly #tables: RotaryTables;
  readonly #long: RotaryTables | undefined;
  /** The length of a text above which its frequencies are others. */
  readonly turningPoint: number;

  constructor(config: { headDim: number; rope: RopeConfig; maxPositionEmbeddings: number }) {
    const { rope, maxPositionEmbeddings: limit } = config;
    const tables = (length: number): RotaryTables =>
      new RotaryTables(ropeFrequencies(config, length), limit, ropeAmplitude(rope));
    this.turningPoint = ropeTurningPoint(rope);
    this.#tables = tables(0);
    if (this.turningPoint < limit) this.#long = tables(limit);
  }

  /**
   * The rotation of rows at `offset` and on, or at given `positions` (i32 [B, T]), all below `end`, which is how long the
   * longest text is. A cache keeps the keys that it has as they were turned: a text that grows past the turning point is
   * not turned anew.
   */
  rotation(device: Device, offset: number, rows: number, positions?: Tensor, end?: number): Rotation {
    const tables = (end ?? offset + rows) > this.turningPoint ? (this.#long ?? this.#tables) : this.#tables;
    return tables.rotation(device, offset, rows, positions, end);
  }

  dispose(): void {
    this.#tables.dispose();
    this.#long?.dispose();
  }
}
