//! The reference: one index at a time.

use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, dims: &[usize]) -> Array {
    let y = Array::from_fn(&x.shape, |at| {
        let source_index = |d: usize| if dims.contains(&d) { x.shape[d] - 1 - at[d] } else { at[d] };
        x.data[(0..at.len()).fold(0, |p, d| p * x.shape[d] + source_index(d))]
    });
    Array { dtype: x.dtype, ..y }
}
