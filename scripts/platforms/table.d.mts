import type { Seen } from "./attempt.mjs";
export interface Row extends Seen {
  platform: string;
  where?: string | undefined;
  unbuilt?: string | undefined;
  packed?: number | undefined;
  unpacked?: number | undefined;
}
export function failed(row: Row): boolean;
export function table(rows: readonly Row[]): string;
