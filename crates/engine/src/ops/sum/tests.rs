use super::{Sum, reference::compute_reference};
use crate::ops::checks::{Array, check, check_non_finite};

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], None), (vec![n, 3], Some(0)), (vec![3, n], Some(1)), (vec![2, n, 65], Some(1))]
        {
            check(&Sum { dim }, &[Array::random("x", &shape)], &|x| vec![compute_reference(&x[0], dim)]);
        }
    }
}

#[test]
fn long_sums_equal_the_reference() {
    let x = Array::random("x", &[40_001]);
    check(&Sum { dim: None }, &[x], &|x| vec![compute_reference(&x[0], None)]);
    let x = Array::random("x", &[2, 20_000, 3]);
    check(&Sum { dim: Some(1) }, &[x], &|x| vec![compute_reference(&x[0], Some(1))]);
}

#[test]
fn non_finite_values_reach_the_sum() {
    let x = Array::new(
        &[4, 3],
        [f64::NAN, 1.0, 2.0, f64::INFINITY, 1.0, 1.0, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1.0, 1.0, 1.0]
            .to_vec(),
    );
    for dim in [None, Some(0), Some(1)] {
        check_non_finite(&Sum { dim }, std::slice::from_ref(&x), &|x| vec![compute_reference(&x[0], dim)]);
    }
}

#[test]
fn integers_are_summed_exactly() {
    for (shape, dims) in
        [(vec![40_001], vec![None]), (vec![2, 20_001, 3], vec![None, Some(0), Some(1), Some(2)])]
    {
        let x = Array::indices("x", &shape, 1 << 12);
        for dim in dims {
            check_non_finite(&Sum { dim }, std::slice::from_ref(&x), &|x| {
                vec![compute_reference(&x[0], dim)]
            });
        }
    }
}
