/** An adapter read from a file of any format, before it is matched with a model. */
import { LowrankError } from "../../errors.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { InjectOptions } from "../options/options.js";

export interface AdapterFile {
  /** The file it was read from. */
  file: string;
  /** Its folder, which may also hold a chat template and labels; undefined for an adapter in a single file. */
  folder?: string | undefined;
  options: InjectOptions;
  /** Tensors on the CPU, under PEFT's keys. */
  tensors: Record<string, Tensor>;
  /** The base model that the adapter names. */
  baseModel?: string | undefined;
  /** The revision of the base model, if it is from the hub. */
  revision?: string | undefined;
  /** The initialisation, if A and B are [A; A₀] and [B, −B₀]: their second halves are the start that was subtracted from the weight. */
  start?: string | undefined;
}

/** PEFT's prefix of every path. */
export const PREFIX = "base_model.model.";

/** Frees the tensors of a file. */
export function disposeFile({ tensors }: AdapterFile): void {
  for (const tensor of Object.values(tensors)) tensor.dispose();
}

/** Throws `ERR_NOT_FINITE` with the names of tensors that contain NaN or infinity. */
export async function checkFinite(tensors: Readonly<Record<string, Tensor>>, file: string): Promise<void> {
  const floats = Object.entries(tensors).filter(([, tensor]) => tensor.dtype !== "i32" && tensor.size > 0);
  const [first, ...rest] = noGrad(() =>
    scope(() => floats.map(([, tensor]) => tensor.to("f32").abs().max().reshape(1))),
  );
  if (first === undefined) return;
  const all = noGrad(() => (rest.length === 0 ? first : first.concat(rest, 0)));
  const largest = [...(await all.data())];
  for (const tensor of new Set([first, ...rest, all])) tensor.dispose();
  const notFinite = floats.filter((_, i) => !Number.isFinite(largest[i])).map(([name]) => name);
  if (notFinite.length > 0) {
    throw new LowrankError(
      "ERR_NOT_FINITE",
      `${file}: ${listSome(notFinite)} ${notFinite.length === 1 ? "holds" : "hold"} NaN or infinity`,
    );
  }
}

/** Lists at most five names and the number of the rest. */
export function listSome(names: readonly string[]): string {
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}
