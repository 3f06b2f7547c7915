/** An adapter as a file holds it, whatever its format, before any model. */
import { LowrankError } from "../../errors.js";
import { noGrad, scope } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import type { InjectOptions } from "../options/options.js";

export interface AdapterFile {
  /** Where it was read. */
  file: string;
  /** Its folder, which may hold a chat template and labels; undefined for an adapter in a single file. */
  folder?: string | undefined;
  options: InjectOptions;
  /** On the cpu, under PEFT's keys. */
  tensors: Record<string, Tensor>;
  /** The model that it says it is for. */
  baseModel?: string | undefined;
  /** Of the model, where it is a hub's. */
  revision?: string | undefined;
  /** How it started, where A and B are [A; A₀] and [B, −B₀]: the second halves are the start, taken out of the weight. */
  start?: string | undefined;
}

/** What PEFT puts before each path. */
export const PREFIX = "base_model.model.";

/** Frees what a file held. */
export function disposeFile({ tensors }: AdapterFile): void {
  for (const tensor of Object.values(tensors)) tensor.dispose();
}

/** Refuses tensors that hold NaN or infinity, by name. */
export async function checkFinite(tensors: Readonly<Record<string, Tensor>>, file: string): Promise<void> {
  const floats = Object.entries(tensors).filter(([, one]) => one.dtype !== "i32" && one.size > 0);
  const [first, ...rest] = noGrad(() =>
    scope(() => floats.map(([, one]) => one.to("f32").abs().max().reshape(1))),
  );
  if (first === undefined) return;
  const all = noGrad(() => (rest.length === 0 ? first : first.concat(rest, 0)));
  const largest = [...(await all.data())];
  for (const tensor of new Set([first, ...rest, all])) tensor.dispose();
  const bad = floats.filter((_, i) => !Number.isFinite(largest[i])).map(([name]) => name);
  if (bad.length > 0) {
    throw new LowrankError(
      "ERR_NOT_FINITE",
      `${file}: ${some(bad)} ${bad.length === 1 ? "holds" : "hold"} NaN or infinity`,
    );
  }
}

/** The first few of many names. */
export function some(names: readonly string[]): string {
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}
