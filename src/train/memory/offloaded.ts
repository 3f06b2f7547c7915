/** The offloaded weights of a run. */
import type { PretrainedModel } from "../../models/pretrained.js";
import type { HeldMemory } from "../held-memory.js";

/** @internal Returns the offloaded weights of a model, and the bytes of those that are on its device. */
export function countOffloaded({ offload }: PretrainedModel): {
  resident: number;
  held: Pick<HeldMemory, "offloaded">;
} {
  if (offload === undefined) return { resident: 0, held: {} };
  return { resident: offload.residentBytes, held: { offloaded: offload.bytes } };
}
