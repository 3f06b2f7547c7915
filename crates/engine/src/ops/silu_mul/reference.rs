//! The oracle.

use crate::ops::checks::Array;

pub fn compute_reference(x: &[Array]) -> Vec<Array> {
    let y = x[0].data.iter().zip(&x[1].data).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    vec![Array::new(&x[0].shape, y)]
}
