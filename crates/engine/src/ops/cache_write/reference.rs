//! The reference: copies rows to their positions, one batch row at a time.

use crate::ops::checks::Array;

/// Writes rows [B, N, H, D] into cache [B, S, H, D] from position `position`.
pub fn compute_reference(cache: &mut Array, rows: &Array, position: usize) {
    let [batch, count, heads, dim] = rows.shape[..] else { unreachable!() };
    let n = count * heads * dim;
    for b in 0..batch {
        let at = (b * cache.shape[1] + position) * heads * dim;
        cache.data[at..at + n].copy_from_slice(&rows.data[b * n..(b + 1) * n]);
    }
}
