/** GGUF's storage types: plain, or blocks whose values share a scale. Source: ggml.h, ggml-common.h. */

/** Block types that can be written. */
export const GGUF_BLOCKS = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"] as const;
/** A block type that can be written. */
export type GgufBlock = (typeof GGUF_BLOCKS)[number];

/** A tensor's storage type that can be written. */
export type GgufType = "f32" | "f16" | "bf16" | GgufBlock;

/** A tensor's storage type in a file: writable types, and types that are only copied from another file. */
export type GgufFileType = GgufType | keyof typeof LARGER;

/** The next larger writable type for types that can only be read. */
const LARGER = { q2_k: "q4_k", q3_k: "q4_k", iq4_nl: "q5_0" } as const satisfies Record<string, GgufType>;

/** For each type its number in a file, the values per block, and the bytes per block. */
export const GGUF_TYPES: Record<GgufFileType, { id: number; values: number; bytes: number }> = {
  f32: { id: 0, values: 1, bytes: 4 },
  f16: { id: 1, values: 1, bytes: 2 },
  q4_0: { id: 2, values: 32, bytes: 18 },
  q4_1: { id: 3, values: 32, bytes: 20 },
  q5_0: { id: 6, values: 32, bytes: 22 },
  q5_1: { id: 7, values: 32, bytes: 24 },
  q8_0: { id: 8, values: 32, bytes: 34 },
  q2_k: { id: 10, values: 256, bytes: 84 },
  q3_k: { id: 11, values: 256, bytes: 110 },
  q4_k: { id: 12, values: 256, bytes: 144 },
  q5_k: { id: 13, values: 256, bytes: 176 },
  q6_k: { id: 14, values: 256, bytes: 210 },
  iq4_nl: { id: 20, values: 32, bytes: 18 },
  bf16: { id: 30, values: 1, bytes: 2 },
};

/** Whether files written here may contain the type. */
export function isFileType(dtype: string): dtype is GgufFileType {
  return Object.hasOwn(GGUF_TYPES, dtype);
}

/** Returns the type itself if it can be written, else the next larger one. */
export function chooseWritable(type: GgufFileType): GgufType {
  return Object.hasOwn(LARGER, type) ? LARGER[type as keyof typeof LARGER] : (type as GgufType);
}

/** Whether values of a type are stored in blocks. */
export function isBlockType(type: string): type is GgufBlock {
  return (GGUF_BLOCKS as readonly string[]).includes(type);
}

/** Returns the bytes of `count` values. */
export function countBytes(type: GgufFileType, count: number): number {
  const { values, bytes } = GGUF_TYPES[type];
  return (count / values) * bytes;
}
