//! The reference: loops.

use super::Matmul;
use crate::ops::checks::Array;

pub fn compute_reference(op: Matmul, a: &Array, b: &Array) -> Array {
    let (rank_a, rank_b) = (a.shape.len(), b.shape.len());
    let rank = rank_a.max(rank_b);
    let size = |x: &Array, d: usize| (d + x.shape.len()).checked_sub(rank).map_or(1, |i| x.shape[i]);
    let (m, k) = match op.trans_a {
        false => (a.shape[rank_a - 2], a.shape[rank_a - 1]),
        true => (a.shape[rank_a - 1], a.shape[rank_a - 2]),
    };
    let n = if op.trans_b { b.shape[rank_b - 2] } else { b.shape[rank_b - 1] };
    let mut shape: Vec<usize> = (0..rank - 2).map(|d| size(a, d).max(size(b, d))).collect();
    shape.extend([m, n]);
    // The offset of an operand's matrix for a batch index.
    let start = |x: &Array, index: &[usize]| {
        let matrix: usize = x.shape[x.shape.len() - 2..].iter().product();
        (0..rank - 2).fold(0, |p, d| p * size(x, d) + if size(x, d) == 1 { 0 } else { index[d] }) * matrix
    };
    Array::from_fn(&shape, |index| {
        let (i, j) = (index[rank - 2], index[rank - 1]);
        let (a_at, b_at) = (start(a, index), start(b, index));
        (0..k)
            .map(|t| {
                let a = a.data[a_at + if op.trans_a { t * m + i } else { i * k + t }];
                a * b.data[b_at + if op.trans_b { j * k + t } else { t * n + j }]
            })
            .sum()
    })
}
