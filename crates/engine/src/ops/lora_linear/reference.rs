//! The reference: the composed operations.

use super::{LoraLinear, WEIGHT, X, a_index, b_index};
use crate::ops::checks::Array;
use crate::ops::dropout::Dropout;
use crate::ops::dropout::reference::compute_reference as dropout;
use crate::ops::linear::reference::compute_reference as linear;

pub fn compute_reference(op: &LoraLinear, inputs: &[Array]) -> Vec<Array> {
    let x = &inputs[X];
    let mut y = linear(op.fan_in_fan_out, x, &inputs[WEIGHT], inputs.get(a_index(op.paths.len())));
    let (features, out) = (*x.shape.last().unwrap(), *y.shape.last().unwrap());
    let mut outputs = Vec::new();
    for (i, path) in op.paths.iter().enumerate() {
        let (a, b) = (&inputs[a_index(i)], &inputs[b_index(i)]);
        let (rank, groups) = (b.shape[1], path.windows.len().max(1));
        let width = b.shape[0] / groups;
        let mut h = Vec::new();
        for range in path.row_ranges(x.data.len() / features) {
            let rows = Array::new(
                &[range.count, features],
                x.data[range.start * features..][..range.count * features].to_vec(),
            );
            let kept = dropout(&Dropout { offset: range.stream, ..path.dropout }, &rows);
            let projected = linear(false, &kept, a, None);
            for row in 0..range.count {
                for group in 0..groups {
                    let start = path.windows.get(group).copied().unwrap_or(0);
                    for v in 0..width {
                        let product: f64 = (0..rank)
                            .map(|k| {
                                projected.data[row * rank * groups + group * rank + k]
                                    * b.data[(group * width + v) * rank + k]
                            })
                            .sum();
                        y.data[(range.start + row) * out + start + v] += path.scale as f64 * product;
                    }
                }
            }
            h.extend(projected.data);
        }
        outputs.push(Array::new(&[h.len() / a.shape[0], a.shape[0]], h));
    }
    outputs.insert(0, y);
    outputs
}
