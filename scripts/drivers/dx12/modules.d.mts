export function grouped(names: readonly string[]): string[];
