use smallvec::SmallVec;

use super::{DIMS, KERNELS, Side, copy};
use crate::kernel::coverage::every_variant;
use crate::launch::Indices;
use crate::ops::checks::{Array, compare, contexts, read};
use crate::shape::Shape;

/// Copies the first [n; dims] of a value with larger dimensions and the given strides.
fn check_copy(dims: &[usize], x: &Array, strides: &[usize]) {
    let expected =
        Array::from_fn(dims, |index| x.data[index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>()]);
    for cx in contexts() {
        let (x, y) = (x.upload(&cx), cx.empty(dims, x.dtype).unwrap());
        let from = Side { value: &x, start: 0, strides: SmallVec::from_slice(strides) };
        copy(&cx, "copy", dims, &from, &Side::whole(&y)).unwrap();
        compare(&format!("{dims:?} by {strides:?}"), &read(&y), &expected, 0.0);
    }
}

every_variant! {
    KERNELS;
    fn corners_and_transposes_of_every_rank_are_copied() {
        for rank in 1..=DIMS {
            for n in if rank < 3 { vec![3, 17] } else { vec![3] } {
                let (dims, larger) = (vec![n; rank], vec![n + 1; rank]);
                let row_strides = |shape: &[usize]| -> Indices { Shape::from(shape).strides() };
                check_copy(&dims, &Array::random("x", &larger), &row_strides(&larger));
                let reversed: Vec<usize> = row_strides(&dims).iter().rev().copied().collect();
                check_copy(&dims, &Array::random("x", &dims), &reversed);
            }
        }
    }
}
