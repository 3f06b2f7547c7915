//! The oracle: the same elements, in the same order.

use crate::ops::checks::Array;

pub fn plain(x: &Array, shape: &[usize]) -> Array {
    Array::new(shape, x.data.clone())
}
