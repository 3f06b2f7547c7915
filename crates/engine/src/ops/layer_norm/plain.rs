//! The oracle: rows less their mean, then the RMS norm's oracle.

use super::LayerNorm;
use crate::ops::checks::Array;
use crate::ops::rms_norm::plain::plain as normalised;

pub fn plain(op: &LayerNorm, x: &[Array]) -> Array {
    let [weight, bias] = op.places().map(|place| place.map(|i| &x[i]));
    normalised(&x[0], weight, bias, op.eps as f64, true)
}
