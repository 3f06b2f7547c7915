export function missing(folders: readonly string[], getuid?: () => number): string[];
