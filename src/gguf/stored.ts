/** Converts a tensor's values to the bytes of a GGUF file. */
import { LowrankError } from "../errors.js";
import { noGrad, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { quantise } from "./blocks.js";
import { GGUF_TYPES, isBlockType, type GgufType } from "./types.js";

/** llama.cpp's replacement types for row sizes that are not a multiple of 256. */
const SMALLER_BLOCKS: Partial<Record<GgufType, GgufType>> = { q4_k: "q5_0", q5_k: "q5_1", q6_k: "q8_0" };

/**
 * Returns the type in which rows of a shape are stored. Block formats require the row size to be a multiple of the
 * block size; other rows get smaller blocks, or else f16, as in llama.cpp.
 */
export function chooseStorable(type: GgufType, shape: readonly number[]): GgufType {
  const row = shape.at(-1) ?? 1;
  const types = [type, SMALLER_BLOCKS[type] ?? "f16", "f16"] as const;
  return types.find((candidate) => row % GGUF_TYPES[candidate].values === 0) as GgufType;
}

/**
 * Returns the bytes of `change(tensor)`, stored as `type`. `where` and `name` are the names in errors. Throws
 * `ERR_DTYPE` where a value is too large for the type, `ERR_NOT_FINITE` where a block contains NaN or infinity.
 */
export async function convertToBytes(
  where: string,
  name: string,
  tensor: Tensor,
  type: GgufType,
  change: (tensor: Tensor) => Tensor = (same) => same,
): Promise<Uint8Array> {
  const changed = noGrad(() => scope(() => change(tensor.to("f32")).to(isBlockType(type) ? "f32" : type)));
  let data: Awaited<ReturnType<Tensor["data"]>>;
  try {
    data = await changed.data();
  } finally {
    if (changed !== tensor) changed.dispose();
  }
  if (isBlockType(type))
    return (await quantise(data as Float32Array, type)) ?? refuseLarge(where, name, tensor, type);
  if (type === "f16" && hasOverflow(data as Uint16Array)) await refuseHalf(where, name, tensor);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Whether f16 values contain infinity or NaN. */
function hasOverflow(halves: Uint16Array): boolean {
  return halves.some((bits) => (bits & 0x7c00) === 0x7c00);
}

/** Rejects values beyond f16; an infinity that was already in the tensor is not a result of the conversion. */
async function refuseHalf(where: string, name: string, tensor: Tensor): Promise<void> {
  const value = await findLargest(tensor);
  if (Number.isFinite(value))
    throw new LowrankError(
      "ERR_DTYPE",
      `${where}: ${name} contains ${value}, beyond f16's maximum of 65,504; store it as bf16 or f32`,
    );
}

async function refuseLarge(where: string, name: string, tensor: Tensor, type: GgufType): Promise<never> {
  const value = await findLargest(tensor);
  if (Number.isFinite(value))
    throw new LowrankError(
      "ERR_DTYPE",
      `${where}: ${name} contains ${value}, too large for the f16 scales of ${type}; store it as bf16 or f32`,
    );
  throw new LowrankError(
    "ERR_NOT_FINITE",
    `${where}: ${name} contains NaN or infinity, which ${type} cannot store`,
  );
}

/** Returns the largest magnitude; infinity or NaN where there is one. */
async function findLargest(tensor: Tensor): Promise<number> {
  const most = noGrad(() => scope(() => tensor.to("f32").abs().max()));
  try {
    return await most.item();
  } finally {
    most.dispose();
  }
}
