//! The reference: one row at a time.

use super::{CrossEntropy, Reduction};
use crate::ops::checks::Array;

pub fn compute_reference(op: CrossEntropy, x: &Array, targets: &Array) -> Array {
    let n = x.shape[x.shape.len() - 1];
    let e = op.label_smoothing as f64;
    let ignored = |t: &f64| *t == op.ignore_index as f64;
    let losses: Vec<f64> = x
        .data
        .chunks(n)
        .zip(&targets.data)
        .map(|(row, t)| {
            if ignored(t) {
                return 0.0;
            }
            let m = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let s = m + row.iter().map(|v| (v - m).exp()).sum::<f64>().ln();
            let even = if e > 0.0 { e * row.iter().sum::<f64>() / n as f64 } else { 0.0 };
            row.get(*t as usize).filter(|_| *t >= 0.0).map_or(f64::NAN, |v| s - (1.0 - e) * v - even)
        })
        .collect();
    let sum: f64 = losses.iter().sum();
    let count = targets.data.iter().filter(|t| !ignored(t)).count() as f64;
    match op.reduction {
        Reduction::None => Array::new(&targets.shape, losses),
        Reduction::Sum => Array::new(&[], vec![sum]),
        Reduction::Mean => Array::new(&[], vec![sum / count]),
    }
}
