/** The geometry of a convolution, and the operation itself. */
import { refuse } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { recordOp, type Tensor } from "../tensor/tensor.js";
import { LAYER_REFUSALS } from "../refusals/layers.js";
import { createRefusal } from "../refusals/refusal.js";

/** One number for all dimensions, or one per dimension. */
export type PerDimension = number | readonly number[];

/** The values of padding: zeros, or the input mirrored (`reflect`), its edge (`replicate`), or its other end (`circular`). */
export type PaddingMode = "zeros" | "reflect" | "replicate" | "circular";

/** The geometry of a convolution; one entry per dimension. */
export interface ConvGeometry {
  /** The stride between windows, one entry per dimension. */
  readonly stride: readonly number[];
  /** Padding before and after, one entry per dimension. */
  readonly padding: readonly (readonly [before: number, after: number])[];
  /** The dilation: the stride between taps, one entry per dimension. */
  readonly dilation: readonly number[];
  /** Groups of channels. */
  readonly groups: number;
  /** The values of padding. */
  readonly paddingMode: PaddingMode;
}

/** The geometry options of a convolution, as of `torch.nn.Conv2d`. */
export interface GeometryOptions {
  /** The stride between windows; 1 by default. */
  stride?: PerDimension | undefined;
  /** Padding on both sides, 0 by default; "same" keeps the size (at stride 1), "valid" is none. */
  padding?: PerDimension | "same" | "valid" | undefined;
  /** The dilation: the stride between taps; 1 by default. */
  dilation?: PerDimension | undefined;
  /** Groups of channels, each convolved separately; 1 by default. */
  groups?: number | undefined;
  /** The values of padding; zeros by default. */
  paddingMode?: PaddingMode | undefined;
}

const MODES: readonly string[] = ["zeros", "reflect", "replicate", "circular"] satisfies PaddingMode[];

/** The engine stores a geometry's numbers in 31 bits. */
const MOST = 2 ** 31 - 1;

/** `value` as one whole number of at least `least` for each of `dims` dimensions. */
export function expandPerDimension(
  layer: string,
  name: string,
  value: PerDimension,
  dims: number,
  least = 1,
): number[] {
  const given: unknown = value;
  if (typeof given !== "number" && !Array.isArray(given))
    refuse(layer, name, `a whole number of at least ${least}, or ${dims} of them`, given);
  const list = typeof value === "number" ? Array.from({ length: dims }, () => value) : [...value];
  if (list.length !== dims || !list.every((n) => Number.isInteger(n) && n >= least))
    refuse(layer, name, `a whole number of at least ${least}, or ${dims} of them`, given);
  if (list.some((n) => n > MOST)) refuse(layer, name, `at most ${MOST}`, given);
  return list;
}

/**
 * The geometry of a kernel of the given sizes. If the total padding of "same" is odd, the larger part comes after, as in
 * PyTorch.
 */
export function readGeometry(
  layer: string,
  kernel: readonly number[],
  { stride = 1, padding = 0, dilation = 1, groups = 1, paddingMode = "zeros" }: GeometryOptions = {},
): ConvGeometry {
  const dims = kernel.length;
  const strides = expandPerDimension(layer, "stride", stride, dims);
  const dilations = expandPerDimension(layer, "dilation", dilation, dims);
  if (!Number.isInteger(groups) || groups < 1) {
    throw new LowrankError(
      "ERR_OPTION",
      `${layer}: groups must be a whole number of at least 1, got ${groups}`,
    );
  }
  if (groups > MOST) refuse(layer, "groups", `at most ${MOST}`, groups);
  if (!MODES.includes(paddingMode)) {
    throw new LowrankError(
      "ERR_OPTION",
      `${layer}: paddingMode "${paddingMode}" is none of ${MODES.join(", ")}`,
    );
  }
  let sides: [number, number][];
  if (padding === "same") {
    if (strides.some((s) => s !== 1))
      throw createRefusal(LAYER_REFUSALS.samePadding, layer, `[${strides.join(", ")}]`);
    sides = kernel.map((k, d) => {
      const total = (dilations[d] as number) * (k - 1);
      return [Math.floor(total / 2), Math.ceil(total / 2)];
    });
  } else if (typeof padding === "string" && padding !== "valid") {
    throw new LowrankError(
      "ERR_OPTION",
      `${layer}: padding "${padding as string}" is neither same nor valid`,
    );
  } else {
    const perDimension = expandPerDimension(layer, "padding", padding === "valid" ? 0 : padding, dims, 0);
    sides = perDimension.map((p) => [p, p]);
  }
  return { stride: strides, padding: sides, dilation: dilations, groups, paddingMode };
}

/** The geometry of a kernel of size 1 that mixes channels in `groups`: a product at each position. */
export function createPointwise(dims: number, groups = 1): ConvGeometry {
  return readGeometry("pointwise", Array<number>(dims).fill(1), { groups });
}

/**
 * W ⋆ x + b over the last dimensions. Shapes: x [B, C, *size] or [C, *size], weight
 * [O, C / groups, *kernel], bias [O], y [B, O, *out] or [O, *out].
 */
export function convolve(x: Tensor, weight: Tensor, bias: Tensor | null, geometry: ConvGeometry): Tensor {
  if (x.shape.length === geometry.stride.length + 1) {
    return convolve(x.unsqueeze(0), weight, bias, geometry).squeeze(0);
  }
  const { stride, dilation, groups, paddingMode } = geometry;
  const padding = geometry.padding.flat();
  const zeros = paddingMode === "zeros";
  const input =
    zeros || padding.every((p) => p === 0) ? x : recordOp(() => session().pad(x.id, padding, paddingMode));
  return recordOp(() =>
    session().conv(
      input.id,
      weight.id,
      bias?.id,
      [...stride],
      zeros ? padding : padding.map(() => 0),
      [...dilation],
      groups,
    ),
  );
}
