//! The reference: the sum, then its norm.

use crate::ops::checks::Array;
use crate::ops::rms_norm::reference::compute_reference as normalised;

/// Computes x + r, and its norm with the remaining inputs.
pub fn compute_reference(x: &[Array], centred: bool) -> Vec<Array> {
    let mut sum = x[0].clone();
    sum.data.iter_mut().zip(&x[1].data).for_each(|(s, r)| *s += r);
    vec![normalised(&sum, x.get(2), x.get(3), 1e-5, centred), sum]
}
