/** Creates tensors with regular values, and constants shaped like another tensor. */
import * as argument from "../arguments/check.js";
import { checkShapeAndOptions, finishTensor, full, tensor, type TensorOptions } from "./create.js";
import { scope } from "./scope.js";
import { type Tensor, isBlock } from "./tensor.js";
import { checkTensor } from "./arguments.js";

/** Options of tensors created like another one; dtype and device default to the other tensor's. */
export type LikeOptions = Omit<TensorOptions, "shape">;

/**
 * Creates an identity matrix: 1 on the diagonal of [rows, columns], 0 elsewhere; f32 by default. `columns` defaults to
 * `rows`. Equivalent to `torch.eye`. Throws `ERR_OPTION`, `ERR_OUT_OF_MEMORY`.
 */
export function eye(rows: number, columns?: number, options?: Omit<TensorOptions, "shape">): Tensor {
  argument.checkWhole("eye", "rows", rows);
  const wide = columns === undefined ? rows : argument.checkWhole("eye", "columns", columns);
  const { dtype = "f32", device, requiresGrad } = checkShapeAndOptions("eye", [rows, wide], options);
  const created = scope(() => {
    const numbers = (n: number): Tensor =>
      tensor(
        Int32Array.from({ length: n }, (_, i) => i),
        { device },
      );
    return numbers(rows).reshape(rows, 1).eq(numbers(wide));
  });
  return finishTensor(created, { dtype, requiresGrad });
}

/**
 * Creates `steps` equally spaced values from `start` to `end`, both included; f32 by default. Equivalent to
 * `torch.linspace`. Throws `ERR_OPTION` for a bound that is not finite.
 */
export function linspace(
  start: number,
  end: number,
  steps: number,
  options?: Omit<TensorOptions, "shape">,
): Tensor {
  for (const [name, value] of Object.entries({ start, end }))
    argument.checkNumberThat("linspace", name, value, Number.isFinite, "a finite number");
  argument.checkWhole("linspace", "steps", steps);
  const { dtype, device, requiresGrad } = checkShapeAndOptions("linspace", [steps], options);
  const step = steps > 1 ? (end - start) / (steps - 1) : 0;
  // Computed from the nearer end, so that both ends are exact.
  const valueAt = (i: number): number => (i < steps / 2 ? start + i * step : end - (steps - 1 - i) * step);
  return finishTensor(
    tensor(
      Float32Array.from({ length: steps }, (_, i) => valueAt(i)),
      { device },
    ),
    { dtype, requiresGrad },
  );
}

/** Creates ones with the shape and, by default, the dtype and device of `other`. Throws `ERR_OPTION`. */
export function onesLike(other: Tensor, options?: LikeOptions): Tensor {
  return fillLike("onesLike", other, 1, options);
}

/** Creates zeros with the shape and, by default, the dtype and device of `other`. Throws `ERR_OPTION`. */
export function zerosLike(other: Tensor, options?: LikeOptions): Tensor {
  return fillLike("zerosLike", other, 0, options);
}

/** Creates a tensor filled with `value`, with the shape and, by default, the dtype and device of `other`. Throws `ERR_OPTION`. */
export function fullLike(other: Tensor, value: number, options?: LikeOptions): Tensor {
  return fillLike("fullLike", other, value, options);
}

function fillLike(where: string, other: Tensor, value: number, options: LikeOptions | undefined): Tensor {
  const model = checkTensor(where, "other", other);
  const { device = model.device, dtype, requiresGrad } = checkShapeAndOptions(where, model.shape, options);
  return full(model.shape, value, {
    device,
    // The counterpart of a quantised weight is f32.
    dtype: dtype ?? (isBlock(model.dtype) ? "f32" : model.dtype),
    requiresGrad,
  });
}
