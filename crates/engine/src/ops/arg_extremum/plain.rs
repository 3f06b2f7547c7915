//! The oracle: the position of the result of `extremum`.

use crate::dtype::DType;
use crate::ops::checks::Array;
use crate::ops::extremum::{Extreme, plain::choose};

/// Returns the index of the first extreme; NaN precedes all numbers.
pub fn plain(extreme: Extreme, x: &Array, dim: Option<usize>) -> Array {
    choose(extreme, x, dim, |_, k| k as f64, DType::I32)
}
