//! The reference: loops over the padded input.

use super::Conv;
use crate::ops::checks::Array;
use crate::shape::pad_to_three;

pub fn compute_reference(op: &Conv, x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
    let dims = op.stride.len();
    let sizes = |a: &Array| pad_to_three(&a.shape[2..], 1);
    let (size, taps) = (sizes(x), sizes(weight));
    let stride = pad_to_three(&op.stride, 1);
    let padding = pad_to_three(&op.padding, [0, 0]);
    let dilation = pad_to_three(&op.dilation, 1);
    let out: Vec<usize> = (0..3)
        .map(|d| (size[d] + padding[d][0] + padding[d][1] - dilation[d] * (taps[d] - 1) - 1) / stride[d] + 1)
        .collect();
    let (channels, rows) = (weight.shape[1], weight.shape[0] / op.groups);
    let shape = [&[x.shape[0], weight.shape[0]], &out[3 - dims..]].concat();
    let list_positions = |n: &[usize]| {
        let [a, b, c] = [n[0], n[1], n[2]];
        (0..a * b * c).map(move |i| [i / (b * c), i / c % b, i % c])
    };
    let mut data = Vec::new();
    for b in 0..x.shape[0] {
        for o in 0..weight.shape[0] {
            for q in list_positions(&out) {
                let mut sum = bias.map_or(0.0, |b| b.data[o]);
                for c in 0..channels {
                    let image = (b * x.shape[1] + o / rows * channels + c) * size.iter().product::<usize>();
                    for (k, t) in list_positions(&taps).enumerate() {
                        let at: Option<Vec<usize>> = (0..3)
                            .map(|d| (q[d] * stride[d] + t[d] * dilation[d]).checked_sub(padding[d][0]))
                            .collect();
                        let at = at.filter(|at| (0..3).all(|d| at[d] < size[d]));
                        let v =
                            at.map_or(0.0, |at| x.data[image + (at[0] * size[1] + at[1]) * size[2] + at[2]]);
                        sum += v * weight.data[(o * channels + c) * taps.iter().product::<usize>() + k];
                    }
                }
                data.push(sum);
            }
        }
    }
    Array::new(&shape, data)
}
