export const STARTS_ITSELF: readonly string[];
export function results(text: string): { passed: number; failed: number; names: string[] };
