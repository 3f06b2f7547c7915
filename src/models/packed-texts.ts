/** Packed texts: several texts in one row of a batch, delimited by positions that restart. */
import { tensor, zeros } from "../tensor/create.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ForwardOptions } from "./pretrained.js";
import type { TokenShape } from "./text-input.js";
import { MODEL_REFUSALS } from "../refusals/models.js";
import { createRefusal } from "../refusals/refusal.js";

/** The texts of a batch, as derived from its positions. */
export interface PackedTexts {
  /** i32 [B, T], equal for positions of the same text; undefined where each row is one text. */
  segments: Tensor | undefined;
  /** One more than the highest position, where the host knows it. */
  end: number | undefined;
}

/**
 * Derives the texts of ids [B, T] from explicit positions, where there is neither a mask nor a cache: as in
 * transformers, a position that does not follow its predecessor starts a new text. Positions known only to the device
 * are compared there.
 *
 * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`; `ERR_INDEX` for a known position outside the model's range; `ERR_OPTION`
 * for known packed texts together with one adapter per row.
 */
export function numberTexts(
  ids: TokenShape,
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
  if (known === null) return { segments: parted ? numberOnDevice(positionIds) : undefined, end: undefined };
  const end = findEnd(known, T, limit);
  const segments = parted ? numberOnHost(known, T) : undefined;
  if (segments === undefined) return { segments, end };
  if (adapterPerRow !== undefined) throw createRefusal(MODEL_REFUSALS.packedAdapters, "forward");
  return { segments: tensor(segments, { shape, device }), end };
}

/** Returns one more than the highest position. Throws `ERR_INDEX` for one outside 0 to `limit` − 1. */
function findEnd(positions: Int32Array, T: number, limit: number): number {
  let end = 0;
  for (const [i, position] of positions.entries()) {
    if (position < 0 || position >= limit) {
      const place = `[${Math.floor(i / T)}, ${i % T}]`;
      const what = `position ${position} at ${place} is out of range; the model has 0 to ${limit - 1}`;
      throw new LowrankError("ERR_INDEX", `forward: ${what}`);
    }
    end = Math.max(end, position + 1);
  }
  return end;
}

/** Numbers the texts within each row; undefined where every row is one text. */
function numberOnHost(positions: Int32Array, T: number): Int32Array | undefined {
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

/** Numbers the texts of positions [B, T] on the device; f32 is exact for them up to 2²⁴. */
function numberOnDevice(positionIds: Tensor): Tensor {
  const [B, T] = positionIds.shape as [number, number];
  const positions = positionIds.to("f32");
  const begins = positions
    .slice(1, 1)
    .sub(positions.slice(1, 0, T - 1))
    .ne(1);
  const first = zeros([B, 1], { device: positionIds.device });
  return first.concat(begins.to("f32").cumsum(1), 1).to("i32");
}
