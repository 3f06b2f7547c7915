/** Texts that lie one behind the other in a row of a batch, told by positions that begin anew. */
import { tensor, zeros } from "../create.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import type { Tensor } from "../tensor.js";
import type { ForwardOptions } from "./pretrained.js";
import type { Places } from "./text-input.js";
import { MODEL_REFUSALS } from "../refusals/models.js";
import { refused } from "../refusals/refusal.js";

/** What positions say of the texts of a batch. */
export interface PackedTexts {
  /** i32 [B, T], equal where two positions are of one text; undefined where each row is one. */
  segments: Tensor | undefined;
  /** Positions are below this, where the host knows them. */
  end: number | undefined;
}

/**
 * The texts of ids [B, T]. Where positions are given, and neither a mask nor a cache, one that does not follow the position
 * before it begins another text, as in transformers. Those that the host does not know are compared on the device.
 *
 * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`; `ERR_INDEX` for a known position that the model does not have; `ERR_OPTION`
 * for known texts that share a row, where each row has an adapter of its own.
 */
export function packedTexts(
  ids: Places,
  { positionIds, attentionMask, adapterPerRow }: ForwardOptions,
  { limit, cached }: { limit: number; cached: boolean },
): PackedTexts {
  if (positionIds === undefined) return { segments: undefined, end: undefined };
  const { shape, dtype, device } = positionIds;
  if (dtype !== "i32") throw new LowrankError("ERR_DTYPE", `forward: positionIds are i32, not ${dtype}`);
  if (shape.join() !== ids.shape.join()) {
    const what = `positionIds are [${shape.join(", ")}], ids [${ids.shape.join(", ")}]; both are [B, T]`;
    throw new LowrankError("ERR_SHAPE_MISMATCH", `forward: ${what}`);
  }
  const known = session().hostValues(positionIds.id);
  const T = shape[1] as number;
  const parted = attentionMask === undefined && !cached && T > 1;
  if (known === null) return { segments: parted ? onDevice(positionIds) : undefined, end: undefined };
  const end = endOf(known, T, limit);
  const segments = parted ? onHost(known, T) : undefined;
  if (segments === undefined) return { segments, end };
  if (adapterPerRow !== undefined) throw refused(MODEL_REFUSALS.packedAdapters, "forward");
  return { segments: tensor(segments, { shape, device }), end };
}

/** One more than the highest position. */
function endOf(positions: Int32Array, T: number, limit: number): number {
  let end = 0;
  for (const [i, position] of positions.entries()) {
    if (position < 0 || position >= limit) {
      const place = `[${Math.floor(i / T)}, ${i % T}]`;
      const what = `position ${position} at ${place} is none of the model's, 0 to ${limit - 1}`;
      throw new LowrankError("ERR_INDEX", `forward: ${what}`);
    }
    end = Math.max(end, position + 1);
  }
  return end;
}

/** The number of each position's text within its row; undefined where every row is one text. */
function onHost(positions: Int32Array, T: number): Int32Array | undefined {
  const segments = new Int32Array(positions.length);
  let several = false;
  for (let i = 0; i < positions.length; i++) {
    if (i % T === 0) continue;
    const begins = positions[i] !== (positions[i - 1] as number) + 1;
    segments[i] = (segments[i - 1] as number) + (begins ? 1 : 0);
    several ||= begins;
  }
  return several ? segments : undefined;
}

/** The same of positions [B, T], which in f32 are exact up to 2²⁴. */
function onDevice(positionIds: Tensor): Tensor {
  const [B, T] = positionIds.shape as [number, number];
  const positions = positionIds.to("f32");
  const begins = positions
    .slice(1, 1)
    .sub(positions.slice(1, 0, T - 1))
    .ne(1);
  const first = zeros([B, 1], { device: positionIds.device });
  return first.concat(begins.to("f32").cumsum(1), 1).to("i32");
}
