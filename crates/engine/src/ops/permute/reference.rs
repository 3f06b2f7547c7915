//! The reference: one index at a time.

use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, order: &[usize]) -> Array {
    let shape: Vec<usize> = order.iter().map(|d| x.shape[*d]).collect();
    let y = Array::from_fn(&shape, |index| {
        let mut from = vec![0; index.len()];
        for (d, i) in order.iter().zip(index) {
            from[*d] = *i;
        }
        x.data[from.iter().zip(&x.shape).fold(0, |at, (i, n)| at * n + i)]
    });
    Array { dtype: x.dtype, ..y }
}
