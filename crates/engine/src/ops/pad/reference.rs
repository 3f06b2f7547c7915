//! The reference: each element by its coordinates.

use super::{Mode, Pad};
use crate::ops::checks::Array;

pub fn compute_reference(op: &Pad, x: &Array) -> Array {
    let first = x.shape.len() - op.padding.len();
    let mut shape = x.shape.clone();
    for (i, [before, after]) in op.padding.iter().enumerate() {
        shape[first + i] += before + after;
    }
    Array::from_fn(&shape, |index| {
        let mut at = 0;
        for (d, (j, n)) in index.iter().zip(&x.shape).enumerate() {
            let mut k = *j as isize - d.checked_sub(first).map_or(0, |i| op.padding[i][0]) as isize;
            let n = *n as isize;
            match op.mode {
                Mode::Reflect => k = if k.abs() < n { k.abs() } else { 2 * (n - 1) - k },
                Mode::Replicate => k = k.max(0).min(n - 1),
                Mode::Circular => k = (k + n) % n,
            }
            at = at * n as usize + k as usize;
        }
        x.data[at]
    })
}
