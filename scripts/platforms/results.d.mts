export interface SuiteRow {
  name: string;
  where: string;
  passed?: number | undefined;
  failed?: number | undefined;
  built?: number | undefined;
  seconds?: number | undefined;
  without?: string[] | undefined;
  wrong: string[];
}
export function suitesTable(rows: readonly SuiteRow[]): string;
