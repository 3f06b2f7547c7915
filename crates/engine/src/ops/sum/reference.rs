//! The reference: loops.

use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, dim: Option<usize>) -> Array {
    let Some(dim) = dim else {
        return Array { dtype: x.dtype, ..Array::new(&[], vec![x.data.iter().sum()]) };
    };
    let mut shape = x.shape.clone();
    let n = shape.remove(dim);
    let inner: usize = x.shape[dim + 1..].iter().product();
    let outer: usize = x.shape[..dim].iter().product();
    let mut data = Vec::new();
    for o in 0..outer {
        for i in 0..inner {
            data.push((0..n).map(|k| x.data[(o * n + k) * inner + i]).sum());
        }
    }
    Array { dtype: x.dtype, ..Array::new(&shape, data) }
}
