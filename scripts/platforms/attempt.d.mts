export const TRIED: readonly ["install", "train", "save", "overwrite", "stop", "resume"];
export type Tried = (typeof TRIED)[number];
export interface System {
  install: (log: string) => number;
  lowrank: (args: string[], log: string) => number;
  node: (args: string[], log: string) => number;
}
export type Losses = [step: number, loss: number][];
export interface Seen {
  node?: string | undefined;
  seconds?: number | undefined;
  losses?: Losses | undefined;
  wrong: Partial<Record<Tried, string | null>>;
}
export interface Recipe {
  steps: number;
  command: string[];
  options: { batchSize: number; gradientAccumulation: number; maxLength: number };
}
export const WHOLE: Recipe;
export const SHORT: Recipe;
export function attempt(folder: string, system: System, expected?: Losses, recipe?: Recipe): Seen;
