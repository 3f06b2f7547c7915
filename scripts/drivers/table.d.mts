export interface Row {
  part: string;
  by: string;
  seen: string;
  seconds: number;
  wrong: readonly string[];
}
export function failed(row: Row): boolean;
export function table(rows: readonly Row[]): string;
