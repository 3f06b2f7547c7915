import { checkNumberThat } from "../arguments/check.js";

/** Validates a port to listen at; 0 stands for a free port. */
export function checkPort(where: string, name: string, value: unknown): number {
  const isPort = (port: number): boolean => Number.isSafeInteger(port) && port >= 0 && port <= 65_535;
  return checkNumberThat(where, name, value, isPort, "a port from 1 to 65535, or 0 for a free one");
}
