//! The reference: all logits, then the cross-entropy of them.

use super::LinearCrossEntropy;
use crate::ops::checks::Array;
use crate::ops::cross_entropy::{CrossEntropy, reference::compute_reference as cross_entropy};

/// Inputs: hidden, weight, targets and, if present, the bias.
pub fn compute_reference(op: LinearCrossEntropy, x: &[Array]) -> Array {
    let (hidden, weight, targets) = (&x[0], &x[1], &x[2]);
    let (v, c) = (weight.shape[0], weight.shape[1]);
    let product = |h: &[f64], w: &[f64]| h.iter().zip(w).map(|(h, w)| h * w).sum::<f64>();
    let bias = |j: usize| x.get(3).map_or(0.0, |b| b.data[j]);
    let of_row = |h| weight.data.chunks(c).enumerate().map(move |(j, w)| product(h, w) + bias(j));
    let logits = hidden.data.chunks(c).flat_map(of_row);
    let shape = [&targets.shape[..], &[v]].concat();
    let loss = CrossEntropy {
        ignore_index: op.ignore_index,
        label_smoothing: op.label_smoothing,
        reduction: op.reduction,
    };
    cross_entropy(loss, &Array::new(&shape, logits.collect()), targets)
}
