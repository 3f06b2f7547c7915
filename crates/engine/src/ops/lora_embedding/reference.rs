//! The reference: the table plus its update, then one row at a time.

use super::LoraEmbedding;
use crate::ops::checks::Array;
use crate::ops::embedding::reference::compute_reference as take;

/// Returns y and h.
pub fn compute_reference(op: &LoraEmbedding, x: &[Array]) -> Vec<Array> {
    let [weight, ids, a, b] = x else { unreachable!() };
    let (rows, columns, rank) = (weight.shape[0], weight.shape[1], a.shape[0]);
    let whole = Array::from_fn(&[rows, columns], |i| {
        let low: f64 = (0..rank).map(|r| a.data[r * rows + i[0]] * b.data[i[1] * rank + r]).sum();
        weight.data[i[0] * columns + i[1]] + op.scale as f64 * low
    });
    vec![take(&op.base(), &whole, ids), take(&op.low_rank(), a, ids)]
}
