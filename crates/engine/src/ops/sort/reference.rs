//! The reference: the standard library's stable sort of each line.

use std::cmp::Ordering;

use super::Sort;
use crate::dtype::DType;
use crate::ops::checks::Array;

/// Returns values and indices.
pub fn compute_reference(op: &Sort, x: &Array) -> Vec<Array> {
    let n = x.shape[op.dim];
    let inner: usize = x.shape[op.dim + 1..].iter().product();
    let outer: usize = x.shape[..op.dim].iter().product();
    let mut shape = x.shape.clone();
    shape[op.dim] = op.count;
    let size: usize = shape.iter().product();
    let (mut values, mut indices) = (vec![0.0; size], vec![0.0; size]);
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| x.data[(o * n + k) * inner + i];
            let compare = |a: &usize, b: &usize| {
                let (a, b) = (at(*a), at(*b));
                a.partial_cmp(&b).unwrap_or_else(|| match (a.is_nan(), b.is_nan()) {
                    (true, true) => Ordering::Equal,
                    (true, false) => Ordering::Greater,
                    _ => Ordering::Less,
                })
            };
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| if op.descending { compare(b, a) } else { compare(a, b) });
            for (k, from) in order[..op.count].iter().enumerate() {
                values[(o * op.count + k) * inner + i] = at(*from);
                indices[(o * op.count + k) * inner + i] = *from as f64;
            }
        }
    }
    vec![
        Array { dtype: x.dtype, ..Array::new(&shape, values) },
        Array { dtype: DType::I32, ..Array::new(&shape, indices) },
    ]
}
