//! The reference: rows of each input in turn.

use crate::ops::checks::Array;

pub fn compute_reference(inputs: &[Array], dim: usize) -> Array {
    let mut shape = inputs[0].shape.clone();
    shape[dim] = inputs.iter().map(|x| x.shape[dim]).sum();
    let outer: usize = shape[..dim].iter().product();
    let mut data = Vec::new();
    for o in 0..outer {
        for x in inputs {
            let row: usize = x.shape[dim..].iter().product();
            data.extend(&x.data[o * row..(o + 1) * row]);
        }
    }
    Array { dtype: inputs[0].dtype, ..Array::new(&shape, data) }
}
