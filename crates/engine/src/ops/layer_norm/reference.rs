//! The reference: rows less their mean, then the RMS norm's oracle.

use super::LayerNorm;
use crate::ops::checks::Array;
use crate::ops::rms_norm::reference::compute_reference as normalised;

pub fn compute_reference(op: &LayerNorm, x: &[Array]) -> Array {
    let [weight, bias] = op.weight_indices().map(|place| place.map(|i| &x[i]));
    normalised(&x[0], weight, bias, op.eps as f64, true)
}
