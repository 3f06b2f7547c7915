export interface Counts {
  passed: number;
  failed: number;
}
export function cargoCounts(output: string): Counts;
export function avaCounts(output: string): Counts;
export function verdict(counts: Counts, status: number | null): Counts;
