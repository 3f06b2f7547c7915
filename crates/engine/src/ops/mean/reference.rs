//! The reference: the sum divided by n.

use crate::ops::checks::Array;
use crate::ops::sum::reference::compute_reference as sum;

pub fn compute_reference(x: &Array, dim: Option<usize>) -> Array {
    let n = dim.map_or(x.data.len(), |d| x.shape[d]) as f64;
    sum(x, dim).map(|v| v / n)
}
