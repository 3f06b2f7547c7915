//! The reference: one index at a time.

use crate::dtype::DType;
use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, index: &Array, dim: usize) -> Array {
    let y = Array::from_fn(&index.shape, |at| {
        let flat_index = |at: &[usize], shape: &[usize]| at.iter().zip(shape).fold(0, |p, (i, n)| p * n + i);
        let j = index.data[flat_index(at, &index.shape)];
        if j < 0.0 || j >= x.shape[dim] as f64 {
            return if x.dtype == DType::I32 { 0.0 } else { f64::NAN };
        }
        let mut from = at.to_vec();
        from[dim] = j as usize;
        x.data[flat_index(&from, &x.shape)]
    });
    Array { dtype: if x.dtype == DType::I32 { DType::I32 } else { DType::F32 }, ..y }
}
