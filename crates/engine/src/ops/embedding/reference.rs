//! The reference: one row at a time.

use super::Embedding;
use crate::ops::checks::Array;

pub fn compute_reference(op: &Embedding, weight: &Array, ids: &Array) -> Array {
    let [a, b] = weight.shape[..] else { unreachable!() };
    let (vocabulary, columns) = if op.transposed { (b, a) } else { (a, b) };
    let mut data = Vec::new();
    for id in &ids.data {
        for c in 0..columns {
            let at = *id as usize;
            data.push(match op.transposed {
                _ if *id < 0.0 || at >= vocabulary => f64::NAN,
                true => weight.data[c * b + at],
                false => weight.data[at * b + c],
            });
        }
    }
    let shape: Vec<usize> = ids.shape.iter().copied().chain([columns]).collect();
    Array::new(&shape, data)
}
