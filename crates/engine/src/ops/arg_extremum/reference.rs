//! The reference: the position of the result of `extremum`.

use crate::dtype::DType;
use crate::ops::checks::Array;
use crate::ops::extremum::{Extreme, reference::choose};

/// Returns the index of the first extreme; NaN precedes all numbers.
pub fn compute_reference(extreme: Extreme, x: &Array, dim: Option<usize>) -> Array {
    choose(extreme, x, dim, |_, k| k as f64, DType::I32)
}
