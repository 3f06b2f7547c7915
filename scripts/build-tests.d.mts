export const COMPILED: string;
export function buildTests(): Promise<void>;
