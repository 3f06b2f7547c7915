//! The oracle: a loop over the elements between a window's two bounds.

use super::AdaptiveAvgPool;
use crate::ops::checks::Array;
use crate::ops::max_pool::plain::{Bounds, pool};

pub fn plain(op: &AdaptiveAvgPool, x: &Array) -> Array {
    let first = x.shape.len() - op.out.len();
    let bounds: Vec<Vec<Bounds>> = (op.out.iter().zip(&x.shape[first..]))
        .map(|(out, n)| {
            let of = |o: usize| (o * n / out, ((o + 1) * n).div_ceil(*out), 0);
            (0..*out).map(of).collect()
        })
        .collect();
    pool(x, &bounds, |held, _| held.iter().sum::<f64>() / held.len() as f64)
}
