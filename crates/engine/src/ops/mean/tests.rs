use super::{Mean, reference::compute_reference};
use crate::ops::checks::{Array, check, check_non_finite};

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], None), (vec![n, 3], Some(0)), (vec![3, n], Some(1)), (vec![2, n, 65], Some(1))]
        {
            check(&Mean { dim }, &[Array::random("x", &shape)], &|x| vec![compute_reference(&x[0], dim)]);
        }
    }
    let x = Array::random("x", &[40_001]);
    check(&Mean { dim: None }, &[x], &|x| vec![compute_reference(&x[0], None)]);
}

#[test]
fn empty_and_non_finite_inputs_equal_the_reference() {
    let x = Array::new(&[2, 3], vec![f64::NAN, 1.0, 2.0, f64::INFINITY, 1.0, 1.0]);
    for dim in [None, Some(0), Some(1)] {
        check_non_finite(&Mean { dim }, std::slice::from_ref(&x), &|x| vec![compute_reference(&x[0], dim)]);
    }
    for (shape, dim) in [([0, 3], Some(0)), ([0, 3], None), ([3, 0], Some(0))] {
        check_non_finite(&Mean { dim }, &[Array::new(&shape, vec![])], &|x| {
            vec![compute_reference(&x[0], dim)]
        });
    }
}
