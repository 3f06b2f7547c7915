//! The reference: one index at a time.

use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, dim: usize, sizes: &[usize]) -> Vec<Array> {
    let mut start = 0;
    let mut piece = |size: &usize| {
        let mut shape = x.shape.clone();
        shape[dim] = *size;
        let y = Array::from_fn(&shape, |at| {
            let source_index = |d: usize| at[d] + if d == dim { start } else { 0 };
            x.data[(0..at.len()).fold(0, |p, d| p * x.shape[d] + source_index(d))]
        });
        start += size;
        Array { dtype: x.dtype, ..y }
    };
    sizes.iter().map(&mut piece).collect()
}
