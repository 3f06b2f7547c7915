//! The reference: the same elements, in the same order.

use crate::ops::checks::Array;

pub fn compute_reference(x: &Array, shape: &[usize]) -> Array {
    Array::new(shape, x.data.clone())
}
