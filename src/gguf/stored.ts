/** A tensor's values as a GGUF file stores them. */
import { LowrankError } from "../errors.js";
import { noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { quantised } from "./blocks.js";
import { GGUF_TYPES, isBlockType, type GgufType } from "./types.js";

/** The type of rows that are no whole blocks of 256, as llama.cpp chooses it. */
const SMALLER_BLOCKS: Partial<Record<GgufType, GgufType>> = { q4_k: "q5_0", q5_k: "q5_1", q6_k: "q8_0" };

/**
 * The type in which rows of a shape are stored. A block type needs whole blocks in each row; other rows are stored in
 * smaller blocks, or else as f16, as llama.cpp does.
 */
export function storableAs(type: GgufType, shape: readonly number[]): GgufType {
  const row = shape.at(-1) ?? 1;
  const types = [type, SMALLER_BLOCKS[type] ?? "f16", "f16"] as const;
  return types.find((one) => row % GGUF_TYPES[one].values === 0) as GgufType;
}

/**
 * The bytes of what `change` makes of `tensor`, stored as `type`. `where` and `name` are what errors call it.
 * Throws `ERR_DTYPE` where a value is too large for the type, `ERR_NOT_FINITE` where a block holds none that is a number.
 */
export async function storedBytes(
  where: string,
  name: string,
  tensor: Tensor,
  type: GgufType,
  change: (tensor: Tensor) => Tensor = (same) => same,
): Promise<Uint8Array> {
  const made = noGrad(() => scope(() => change(tensor.to("f32")).to(isBlockType(type) ? "f32" : type)));
  let data: Awaited<ReturnType<Tensor["data"]>>;
  try {
    data = await made.data();
  } finally {
    if (made !== tensor) made.dispose();
  }
  if (isBlockType(type))
    return (await quantised(data as Float32Array, type)) ?? refuseLarge(where, name, tensor, type);
  if (type === "f16" && overflows(data as Uint16Array)) await refuseHalf(where, name, tensor);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Whether f16 values are infinite, or no number. */
function overflows(halves: Uint16Array): boolean {
  return halves.some((bits) => (bits & 0x7c00) === 0x7c00);
}

/** Refuses values beyond f16's; what was infinite before is none of its making. */
async function refuseHalf(where: string, name: string, tensor: Tensor): Promise<void> {
  const value = await largest(tensor);
  if (Number.isFinite(value))
    throw new LowrankError(
      "ERR_DTYPE",
      `${where}: ${name} holds ${value}, and f16 ends at 65,504: store it as bf16 or f32`,
    );
}

async function refuseLarge(where: string, name: string, tensor: Tensor, type: GgufType): Promise<never> {
  const value = await largest(tensor);
  if (Number.isFinite(value))
    throw new LowrankError(
      "ERR_DTYPE",
      `${where}: ${name} holds ${value}, and the scales of ${type} end at 65,504: store it as bf16 or f32`,
    );
  throw new LowrankError(
    "ERR_NOT_FINITE",
    `${where}: ${name} holds NaN or infinity, and ${type} has neither`,
  );
}

/** The largest magnitude; infinity or NaN where there is one. */
async function largest(tensor: Tensor): Promise<number> {
  const most = noGrad(() => scope(() => tensor.to("f32").abs().max()));
  try {
    return await most.item();
  } finally {
    most.dispose();
  }
}
