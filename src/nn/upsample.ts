import {
  checkFlag,
  checkNumberThat,
  checkChoice,
  checkKnownOptions,
  refuse,
  checkWhole,
} from "../arguments/check.js";
import { tensor } from "../tensor/create.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { recordOp, type Tensor } from "../tensor/tensor.js";
import type { PerDimension } from "./convolution.js";
import { checkInput, refuseMismatch } from "./inputs.js";
import { Module } from "./module.js";

/**
 * The interpolation between elements of the input: the nearest one before, or linear over one, two or three dimensions.
 */
export type UpsampleMode = "nearest" | "linear" | "bilinear" | "trilinear";

/** The options of `Upsample`: either `size` or `scaleFactor`. */
export interface UpsampleOptions {
  /** The size of the output: one number for all dimensions after the channels, or one per dimension. */
  size?: PerDimension | undefined;
  /** The factor of the size: one number for all dimensions after the channels, or one per dimension. */
  scaleFactor?: PerDimension | undefined;
  /** `nearest` by default. */
  mode?: UpsampleMode | undefined;
  /** Whether the corner elements of input and output are aligned, in linear modes; false by default. */
  alignCorners?: boolean | undefined;
}

const MODES: readonly UpsampleMode[] = ["nearest", "linear", "bilinear", "trilinear"];

/** An element of the output: a weighted sum of elements of the input. */
interface Taps {
  places: Int32Array;
  shares: Float32Array;
}

/** Resizes the input, one dimension after another; gradients are summed in a fixed order. As `torch.nn.Upsample`. */
export class Upsample extends Module {
  /** The size of the output, for all dimensions or per dimension; null if a factor is given. */
  readonly size: PerDimension | null;
  /** The factor of the size, for all dimensions or per dimension; null if a size is given. */
  readonly scaleFactor: PerDimension | null;
  /** The interpolation. */
  readonly mode: UpsampleMode;
  /** Whether the corner elements of input and output are aligned. */
  readonly alignCorners: boolean;

  /**
   * To one `size`, or by one `scaleFactor`. Throws `ERR_OPTION` if both or neither are given, or one is out of range.
   */
  constructor(given: UpsampleOptions) {
    super();
    const layer = new.target.name;
    const known = ["size", "scaleFactor", "mode", "alignCorners"] as const;
    const {
      size,
      scaleFactor,
      mode = "nearest",
      alignCorners,
    } = { ...checkKnownOptions(layer, given, known) };
    if ((size === undefined) === (scaleFactor === undefined))
      throw new LowrankError("ERR_OPTION", `${layer}: give one of size and scaleFactor`);
    checkEach(size, (value) => checkWhole(layer, "size", value, 1));
    const factor = (n: number): boolean => n > 0 && Number.isFinite(n);
    checkEach(scaleFactor, (value) =>
      checkNumberThat(layer, "scaleFactor", value, factor, "a number above 0"),
    );
    this.size = size ?? null;
    this.scaleFactor = scaleFactor ?? null;
    this.mode = checkChoice(layer, "mode", mode, MODES);
    if (alignCorners !== undefined) checkFlag(layer, "alignCorners", alignCorners);
    if (mode === "nearest" && alignCorners !== undefined)
      refuse(
        layer,
        "alignCorners",
        "unset except for the modes linear, bilinear and trilinear",
        alignCorners,
      );
    this.alignCorners = alignCorners ?? false;
  }

  /**
   * Shapes: x [B, C, *size] with one to three dimensions after the channels, as the mode requires; y [B, C, *out] with
   * out = ⌊size · scaleFactor⌋ or `size`. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`.
   */
  forward(x: Tensor): Tensor {
    const layer = this.constructor.name;
    checkInput(layer, x);
    const dims = x.shape.length - 2;
    const mode = MODES.indexOf(this.mode);
    if (dims < 1 || dims > 3 || (mode > 0 && mode !== dims) || x.shape.includes(0)) {
      const shapes = ["[B, C, L]", "[B, C, H, W]", "[B, C, D, H, W]"];
      refuseMismatch(
        `${layer} (${this.mode})`,
        mode > 0 ? (shapes[mode - 1] as string) : shapes.join(" or "),
        x,
      );
    }
    return x.shape.slice(2).reduce((y, size, d) => {
      const out = this.size === null ? undefined : readDimension(layer, "size", this.size, d, dims);
      const scale =
        this.scaleFactor === null
          ? undefined
          : readDimension(layer, "scaleFactor", this.scaleFactor, d, dims);
      const length = out ?? Math.floor(size * (scale as number));
      if (length < 1) refuse(layer, "scaleFactor", "such that something is left", this.scaleFactor);
      if (length === size && scale === undefined) return y;
      // As in PyTorch, a given factor is used unchanged, though the output's size is rounded.
      const apart = scale === undefined ? size / length : 1 / scale;
      const taps =
        this.mode === "nearest"
          ? computeNearestTaps(size, length, apart, dims)
          : computeLinearTaps(size, length, apart, this.alignCorners);
      return interpolateAlong(y, d + 2, taps);
    }, x);
  }
}

/** The same as `Upsample`, named after the function that it computes (`torch.nn.functional.interpolate`). */
export class Interpolate extends Upsample {}

/** Resizes `x`, as `Upsample` with the same options. As `torch.nn.functional.interpolate`. */
export function interpolate(x: Tensor, options: UpsampleOptions): Tensor {
  return new Interpolate(options).forward(x);
}

/** Checks one number, or each of several. */
function checkEach(value: PerDimension | undefined, check: (item: unknown) => unknown): void {
  if (Array.isArray(value)) value.forEach(check);
  else if (value !== undefined) check(value);
}

/** The number for dimension `d` of `dims`. */
function readDimension(layer: string, name: string, value: PerDimension, d: number, dims: number): number {
  if (typeof value === "number") return value;
  if (value.length === dims) return value[d] as number;
  return refuse(layer, name, `one number, or ${dims}`, value);
}

/**
 * The element at or before each position. PyTorch computes positions in f32, which decides their rounding; in two
 * dimensions, equal and double sizes are copies, whatever the factor.
 */
function computeNearestTaps(size: number, out: number, apart: number, dims: number): Taps[] {
  const step = Math.fround(apart);
  const place = (o: number): number => {
    if (dims === 2 && out === size) return o;
    if (dims === 2 && out === 2 * size) return o >> 1;
    return Math.min(Math.floor(Math.fround(o * step)), size - 1);
  };
  return [{ places: Int32Array.from({ length: out }, (_, o) => place(o)), shares: new Float32Array() }];
}

/** The two elements next to each position, with their weights. */
function computeLinearTaps(size: number, out: number, apart: number, alignCorners: boolean): Taps[] {
  const step = alignCorners ? (out > 1 ? (size - 1) / (out - 1) : 0) : apart;
  const places = Array.from({ length: out }, (_, o) =>
    alignCorners ? o * step : Math.max(0, (o + 0.5) * step - 0.5),
  );
  const before = Int32Array.from(places, (place) => Math.min(Math.floor(place), size - 1));
  const after = before.map((place) => Math.min(place + 1, size - 1));
  const share = places.map((place, o) => Math.min(1, place - (before[o] as number)));
  return [
    { places: before, shares: Float32Array.from(share, (s) => 1 - s) },
    { places: after, shares: Float32Array.from(share) },
  ];
}

/** The weighted sums of `taps` along dimension `dim`; its slices are the rows of a table. */
function interpolateAlong(x: Tensor, dim: number, taps: readonly Taps[]): Tensor {
  const { device } = x;
  const order = [dim, ...x.shape.map((_, d) => d).filter((d) => d !== dim)];
  const permuted = x.permute(order);
  const [size, ...rest] = permuted.shape as [number, ...number[]];
  const table = permuted.reshape(size, x.size / size);
  const parts = taps.map(({ places, shares }) => {
    const ids = tensor(places, { device });
    const rows = recordOp(() => session().embedding(table.id, ids.id, false));
    return shares.length === 0 ? rows : rows.mul(tensor(shares, { shape: [shares.length, 1], device }));
  });
  const [first, second] = parts as [Tensor, Tensor?];
  const sum = second === undefined ? first : first.add(second);
  return sum.reshape(sum.shape[0] as number, ...rest).permute(x.shape.map((_, d) => order.indexOf(d)));
}
