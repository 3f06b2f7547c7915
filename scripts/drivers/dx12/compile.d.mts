export const NAMES: readonly string[];
export interface Compiled {
  ms: number;
  wrong: string;
}
export function parse(text: string): [file: string, compiled: Compiled][];
export function times(rows: readonly Compiled[]): string;
