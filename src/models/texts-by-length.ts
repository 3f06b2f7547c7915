/** Batches texts of similar length, with padding on the right. */
import { tensor } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import type { Tensor } from "../tensor/tensor.js";

/** Yields batches of indices of `rows`, shortest first, so that padding is at most half of a batch. */
export function* groupByLength(
  rows: readonly { readonly length: number }[],
  batchSize: number,
): IterableIterator<number[]> {
  const order = rows.map((_, i) => i).sort((a, b) => (rows[a]?.length ?? 0) - (rows[b]?.length ?? 0));
  let [batch, tokens]: [number[], number] = [[], 0];
  for (const place of order) {
    const { length } = rows[place] as { length: number };
    const padded = (batch.length + 1) * length;
    if (batch.length === batchSize || (batch.length > 0 && padded > 2 * (tokens + length))) {
      yield batch;
      [batch, tokens] = [[], 0];
    }
    batch.push(place);
    tokens += length;
  }
  if (batch.length > 0) yield batch;
}

/** Pads rows of ids into i32 [B, T], with a mask i32 [B, T] that is 0 for padding. */
export function padRows(
  rows: readonly Int32Array[],
  padTokenId: number,
  device: Device,
): { ids: Tensor; attentionMask: Tensor } {
  const [B, T] = [rows.length, Math.max(1, ...rows.map((row) => row.length))];
  const ids = new Int32Array(B * T).fill(padTokenId);
  const mask = new Int32Array(B * T);
  for (const [b, row] of rows.entries()) {
    ids.set(row, b * T);
    mask.fill(1, b * T, b * T + row.length);
  }
  const shape = [B, T];
  return { ids: tensor(ids, { shape, device }), attentionMask: tensor(mask, { shape, device }) };
}
