//! The reference: the sum over a window, divided by its count.

use super::AvgPool;
use crate::ops::checks::Array;
use crate::ops::max_pool::reference::{list_all_bounds, pool};

pub fn compute_reference(op: &AvgPool, x: &Array) -> Array {
    pool(x, &list_all_bounds(&op.window, x), |values, volume| {
        values.iter().sum::<f64>() / if op.count_padding { volume } else { values.len() } as f64
    })
}
