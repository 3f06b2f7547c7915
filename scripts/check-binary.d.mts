export const GLIBC: string;
export const LARGEST: number;
export function checkBinary(name: string, binary: string): void;
export function needed(binary: string): { versions: string[]; libraries: string[] };
