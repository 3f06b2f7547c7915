//! The reference: one element at a time, one counter each.

use lowrank_cpu::random::{philox, words};

use super::Dropout;
use crate::ops::checks::Array;

pub fn is_kept(op: &Dropout, i: usize) -> bool {
    let [low, high] = words(op.offset);
    let word = philox([(i / 4) as u32, 0, low, high], words(op.seed))[i % 4];
    word as f64 >= op.p * 2f64.powi(32)
}

pub fn compute_reference(op: &Dropout, x: &Array) -> Array {
    let data = x.data.iter().enumerate().map(|(i, v)| match op.p {
        0.0 => *v,
        1.0 => 0.0,
        p => v * if is_kept(op, i) { 1.0 / (1.0 - p) } else { 0.0 },
    });
    Array::new(&x.shape, data.collect())
}
