//! The oracle: a product by each factor.

use crate::ops::checks::Array;
use crate::ops::linear::plain::plain as linear;

/// h_i = x·A_iᵀ over [x, A_0, A_1, ..], as [rows, R_i].
pub fn plain(x: &[Array]) -> Vec<Array> {
    let rows = x[0].data.len() / x[0].shape.last().unwrap();
    let flat = |y: Array| Array::new(&[rows, y.data.len() / rows], y.data);
    x[1..].iter().map(|a| flat(linear(false, &x[0], a, None))).collect()
}
