//! The oracle: the composed form.

use super::{A, B, BIAS, LoraLinear, WEIGHT, X};
use crate::ops::checks::Array;
use crate::ops::dropout::plain::plain as dropout;
use crate::ops::linear::plain::plain as linear;

pub fn plain(op: LoraLinear, inputs: &[Array]) -> Vec<Array> {
    let mut y = linear(op.fan_in_fan_out, &inputs[X], &inputs[WEIGHT], inputs.get(BIAS));
    let kept = dropout(&op.dropout, &inputs[X]);
    let h = linear(false, &kept, &inputs[A], None);
    let low_rank = linear(false, &h, &inputs[B], None);
    for (y, v) in y.data.iter_mut().zip(low_rank.data) {
        *y += op.scale as f64 * v;
    }
    vec![y, h]
}
