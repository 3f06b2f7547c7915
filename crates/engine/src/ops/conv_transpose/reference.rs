//! The reference: each element of x is spread over y.

use super::ConvTranspose;
use crate::ops::checks::Array;
use crate::shape::pad_to_three;

pub fn compute_reference(op: &ConvTranspose, x: &Array, weight: &Array) -> Array {
    let conv = &op.conv;
    let dims = conv.stride.len();
    let sizes = |a: &Array| pad_to_three(&a.shape[2..], 1);
    let (size, taps) = (sizes(x), sizes(weight));
    let (stride, dilation) = (pad_to_three(&conv.stride, 1), pad_to_three(&conv.dilation, 1));
    let (padding, more) = (pad_to_three(&conv.padding, [0, 0]), pad_to_three(&op.output_padding, 0));
    let out: Vec<usize> = (0..3)
        .map(|d| {
            (size[d] - 1) * stride[d] + dilation[d] * (taps[d] - 1) + more[d] + 1
                - padding[d][0]
                - padding[d][1]
        })
        .collect();
    let (rows, channels) = (weight.shape[0] / conv.groups, weight.shape[1]);
    let all = channels * conv.groups;
    let image: usize = out.iter().product();
    let mut y = vec![0.0; x.shape[0] * all * image];
    let list_positions = |n: &[usize]| {
        let [a, b, c] = [n[0], n[1], n[2]];
        (0..a * b * c).map(move |i| [i / (b * c), i / c % b, i % c])
    };
    for b in 0..x.shape[0] {
        for i in 0..weight.shape[0] {
            for (at, q) in list_positions(&size).enumerate() {
                let v = x.data[(b * weight.shape[0] + i) * size.iter().product::<usize>() + at];
                for o in 0..channels {
                    for (k, t) in list_positions(&taps).enumerate() {
                        let to: Option<Vec<usize>> = (0..3)
                            .map(|d| (q[d] * stride[d] + t[d] * dilation[d]).checked_sub(padding[d][0]))
                            .collect();
                        let Some(to) = to.filter(|to| (0..3).all(|d| to[d] < out[d])) else { continue };
                        let plane = (b * all + i / rows * channels + o) * image;
                        let w = weight.data[(i * channels + o) * taps.iter().product::<usize>() + k];
                        y[plane + (to[0] * out[1] + to[1]) * out[2] + to[2]] += v * w;
                    }
                }
            }
        }
    }
    Array::new(&[&[x.shape[0], all], &out[3 - dims..]].concat(), y)
}
