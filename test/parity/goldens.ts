/** The location of the goldens, their tensors on the host, and the error of a result relative to one. */
import { fileURLToPath } from "node:url";

import { safetensors } from "../../src/index.js";

export const goldens = fileURLToPath(new URL("goldens", import.meta.url));

/** The values of a golden. */
export interface Golden {
  data: Float32Array | Int32Array;
  shape: readonly number[];
}

/** Returns all tensors of a file, on the host. */
export async function onHost(file: string): Promise<Record<string, Golden>> {
  const tensors = await safetensors.load(file, { device: "cpu" });
  const host: Record<string, Golden> = {};
  for (const [name, one] of Object.entries(tensors)) {
    host[name] = { data: (await one.data()) as Golden["data"], shape: one.shape };
    one.dispose();
  }
  return host;
}

/** Returns the largest difference, relative to the largest golden value. */
export function error(ours: ArrayLike<number>, golden: ArrayLike<number>): number {
  let [difference, largest] = [0, 0];
  for (let i = 0; i < golden.length; i++) {
    difference = Math.max(difference, Math.abs((ours[i] as number) - (golden[i] as number)));
    largest = Math.max(largest, Math.abs(golden[i] as number));
  }
  if (ours.length !== golden.length) return Infinity;
  // If all golden values are 0, the result must be exact.
  return difference === 0 ? 0 : difference / largest;
}
