/** The middle one, or the upper of two. */
export function median(list: readonly number[]): number;
