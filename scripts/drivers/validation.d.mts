export const KNOWN: readonly string[];
export function findings(wrote: string): { known: Map<string, number>; other: Map<string, number> };
