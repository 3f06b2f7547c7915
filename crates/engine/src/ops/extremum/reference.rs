//! The reference: loops.

use super::Extreme;
use crate::dtype::DType;
use crate::ops::checks::Array;

pub fn compute_reference(extreme: Extreme, x: &Array, dim: Option<usize>) -> Array {
    choose(extreme, x, dim, |v, _| v, x.dtype)
}

/// Applies `result` to the value and position of the first extreme of each line; NaN precedes all numbers.
pub fn choose(
    extreme: Extreme,
    x: &Array,
    dim: Option<usize>,
    result: impl Fn(f64, usize) -> f64,
    dtype: DType,
) -> Array {
    let mut shape = x.shape.clone();
    let (outer, n, inner) = match dim {
        Some(d) => (shape[..d].iter().product(), shape.remove(d), x.shape[d + 1..].iter().product::<usize>()),
        None => (1, std::mem::take(&mut shape).iter().product(), 1),
    };
    let mut data = Vec::new();
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| x.data[(o * n + k) * inner + i];
            let mut best = 0;
            for k in 1..n {
                let further = if extreme == Extreme::Max { at(k) > at(best) } else { at(k) < at(best) };
                if further || (at(k).is_nan() && !at(best).is_nan()) {
                    best = k;
                }
            }
            data.push(result(at(best), best));
        }
    }
    Array { dtype, ..Array::new(&shape, data) }
}
