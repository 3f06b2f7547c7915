/** The median; of an even number of values, the upper middle one. */
export function median(list: readonly number[]): number;
