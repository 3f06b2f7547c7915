//! The reference: one index at a time.

use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, index: &Array, src: &Array, dim: usize) -> Array {
    let mut y = x.clone();
    let flat_index = |at: &[usize], shape: &[usize]| at.iter().zip(shape).fold(0, |p, (i, n)| p * n + i);
    let at = Array::from_fn(&index.shape, |at| flat_index(at, &src.shape) as f64);
    let to = Array::from_fn(&index.shape, |at| {
        let mut to = at.to_vec();
        to[dim] = index.data[flat_index(at, &index.shape)] as usize;
        flat_index(&to, &x.shape) as f64
    });
    for (from, to) in at.data.iter().zip(&to.data) {
        y.data[*to as usize] += src.data[*from as usize];
    }
    y
}
