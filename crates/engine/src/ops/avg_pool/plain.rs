//! The oracle: the sum over a window, divided by its count.

use super::AvgPool;
use crate::ops::checks::Array;
use crate::ops::max_pool::plain::{all, pool};

pub fn plain(op: &AvgPool, x: &Array) -> Array {
    pool(x, &all(&op.window, x), |held, volume| {
        held.iter().sum::<f64>() / if op.count_padding { volume } else { held.len() } as f64
    })
}
