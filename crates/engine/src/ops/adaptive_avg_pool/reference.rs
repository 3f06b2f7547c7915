//! The reference: a loop over the elements between a window's two bounds.

use super::AdaptiveAvgPool;
use crate::ops::checks::Array;
use crate::ops::max_pool::reference::{Bounds, pool};

pub fn compute_reference(op: &AdaptiveAvgPool, x: &Array) -> Array {
    let first = x.shape.len() - op.out.len();
    let bounds: Vec<Vec<Bounds>> = (op.out.iter().zip(&x.shape[first..]))
        .map(|(out, n)| {
            let bounds_of = |o: usize| (o * n / out, ((o + 1) * n).div_ceil(*out), 0);
            (0..*out).map(bounds_of).collect()
        })
        .collect();
    pool(x, &bounds, |values, _| values.iter().sum::<f64>() / values.len() as f64)
}
