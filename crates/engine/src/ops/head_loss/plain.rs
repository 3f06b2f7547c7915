//! The oracle: the logits whole, then the plain cross-entropy.

use super::HeadLoss;
use crate::ops::checks::Array;
use crate::ops::cross_entropy::{CrossEntropy, Reduction, plain::plain as cross_entropy};

pub fn plain(op: HeadLoss, hidden: &Array, weight: &Array, targets: &Array) -> Array {
    let (v, c) = (weight.shape[0], weight.shape[1]);
    let product = |h: &[f64], w: &[f64]| h.iter().zip(w).map(|(h, w)| h * w).sum();
    let logits = hidden.data.chunks(c).flat_map(|h| weight.data.chunks(c).map(move |w| product(h, w)));
    let shape = [&targets.shape[..], &[v]].concat();
    let loss = CrossEntropy {
        ignore_index: op.ignore_index,
        label_smoothing: op.label_smoothing,
        reduction: if op.mean { Reduction::Mean } else { Reduction::Sum },
    };
    cross_entropy(loss, &Array::new(&shape, logits.collect()), targets)
}
