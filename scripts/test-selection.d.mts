export const EXHAUSTIVE: readonly string[];
export const GPU_SAMPLE: { readonly cargo: readonly string[]; readonly ava: readonly string[] };
export const QUICK: readonly string[];
