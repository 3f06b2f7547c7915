//! The oracle: one index at a time.

use crate::ops::checks::Array;

pub fn plain(x: &Array, dim: usize, sizes: &[usize]) -> Vec<Array> {
    let mut start = 0;
    let mut piece = |size: &usize| {
        let mut shape = x.shape.clone();
        shape[dim] = *size;
        let y = Array::from_fn(&shape, |at| {
            let place = |d: usize| at[d] + if d == dim { start } else { 0 };
            x.data[(0..at.len()).fold(0, |p, d| p * x.shape[d] + place(d))]
        });
        start += size;
        Array { dtype: x.dtype, ..y }
    };
    sizes.iter().map(&mut piece).collect()
}
