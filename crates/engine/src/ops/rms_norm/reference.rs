//! The reference: one row at a time.

use crate::ops::checks::Array;

/// Shared with the layer norm: subtracts the mean of each row if `centred`.
pub fn compute_reference(
    x: &Array,
    weight: Option<&Array>,
    bias: Option<&Array>,
    eps: f64,
    centred: bool,
) -> Array {
    let n = x.shape[x.shape.len() - 1];
    let mut y = x.clone();
    for row in y.data.chunks_mut(n) {
        let mean = if centred { row.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let squares = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
        for (k, v) in row.iter_mut().enumerate() {
            *v = (*v - mean) / (squares + eps).sqrt() * weight.map_or(1.0, |w| w.data[k])
                + bias.map_or(0.0, |b| b.data[k]);
        }
    }
    y
}
