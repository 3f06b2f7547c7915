//! The oracle: the place of what `extremum` takes.

use crate::dtype::DType;
use crate::ops::checks::Array;
use crate::ops::extremum::{Extreme, plain::choose};

/// Index of the first extreme; NaN comes before all.
pub fn plain(extreme: Extreme, x: &Array, dim: Option<usize>) -> Array {
    choose(extreme, x, dim, |_, k| k as f64, DType::I32)
}
