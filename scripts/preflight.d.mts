export function compareVersions(a: string, b: string): number;
export function satisfies(version: string, range: string): boolean;
export function problems(): string[];
export function preflight(): void;
