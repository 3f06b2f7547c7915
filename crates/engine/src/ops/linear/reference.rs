//! The reference: loops.

use crate::ops::checks::Array;

pub fn compute_reference(fan_in_fan_out: bool, x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
    let features = *x.shape.last().unwrap();
    let out = weight.shape[1 - (!fan_in_fan_out) as usize];
    let mut shape = x.shape.clone();
    *shape.last_mut().unwrap() = out;
    let mut data = Vec::new();
    for row in x.data.chunks(features) {
        for o in 0..out {
            let at = |i: usize| if fan_in_fan_out { i * out + o } else { o * features + i };
            let sum: f64 = row.iter().enumerate().map(|(i, x)| x * weight.data[at(i)]).sum();
            data.push(sum + bias.map_or(0.0, |b| b.data[o]));
        }
    }
    Array::new(&shape, data)
}
