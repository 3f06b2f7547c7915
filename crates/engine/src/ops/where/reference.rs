//! The reference: a loop over the broadcast index space.

use crate::ops::checks::Array;

pub fn compute_reference(condition: &Array, a: &Array, b: &Array) -> Array {
    let all = [condition, a, b];
    let rank = all.iter().map(|x| x.shape.len()).max().unwrap_or(0);
    let size_of = |x: &Array, d: usize| (d + x.shape.len()).checked_sub(rank).map_or(1, |i| x.shape[i]);
    let shape: Vec<usize> = (0..rank).map(|d| all.iter().map(|x| size_of(x, d)).max().unwrap_or(1)).collect();
    let at = |x: &Array, index: &[usize]| {
        let place = (0..rank).fold(0, |p, d| {
            let n = size_of(x, d);
            p * n + if n == 1 { 0 } else { index[d] }
        });
        x.data[place]
    };
    Array::from_fn(&shape, |index| at(if at(condition, index) != 0.0 { a } else { b }, index))
}
