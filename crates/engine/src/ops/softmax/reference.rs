//! The reference: loops.

use super::{Softmax, SoftmaxKind};
use crate::ops::checks::Array;

pub fn compute_reference(op: Softmax, x: &Array) -> Array {
    let n = x.shape[op.dim];
    let inner: usize = x.shape[op.dim + 1..].iter().product();
    let mut y = x.clone();
    for start in (0..x.data.len()).filter(|i| (i / inner).is_multiple_of(n)) {
        let row: Vec<f64> = (0..n).map(|k| x.data[start + k * inner]).collect();
        let m = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let s: f64 = row.iter().map(|v| (v - m).exp()).sum();
        for (k, v) in row.iter().enumerate() {
            y.data[start + k * inner] = match op.kind {
                SoftmaxKind::Softmax => (v - m).exp() / s,
                SoftmaxKind::LogSoftmax => v - m - s.ln(),
            };
        }
    }
    y
}
