//! The reference: one index at a time.

use super::Slice;
use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, slice: Slice) -> Array {
    let mut shape = x.shape.clone();
    shape[slice.dim] = slice.end - slice.start;
    let y = Array::from_fn(&shape, |index| {
        let mut from = index.to_vec();
        from[slice.dim] += slice.start;
        x.data[from.iter().zip(&x.shape).fold(0, |at, (i, n)| at * n + i)]
    });
    Array { dtype: x.dtype, ..y }
}
