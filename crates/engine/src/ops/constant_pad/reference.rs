//! The reference: one index at a time.

use super::ConstantPad;
use crate::ops::checks::Array;

pub fn compute_reference(op: &ConstantPad, x: &Array) -> Array {
    let first = x.shape.len() - op.padding.len();
    let before = |d: usize| d.checked_sub(first).map_or(0, |i| op.padding[i][0]);
    let after = |d: usize| d.checked_sub(first).map_or(0, |i| op.padding[i][1]);
    let shape: Vec<usize> = (0..x.shape.len()).map(|d| before(d) + x.shape[d] + after(d)).collect();
    let y = Array::from_fn(&shape, |at| {
        let inside = |d: usize| at[d] >= before(d) && at[d] - before(d) < x.shape[d];
        if !(0..at.len()).all(inside) {
            return op.value;
        }
        x.data[(0..at.len()).fold(0, |p, d| p * x.shape[d] + at[d] - before(d))]
    });
    Array { dtype: x.dtype, ..y }
}
