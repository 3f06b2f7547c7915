use super::{Softmax, reference::compute_reference};
use crate::ops::checks::{Array, check, check_non_finite};

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], 0), (vec![3, n], 1), (vec![n, 3], 0), (vec![2, n, 3], 1), (vec![2, 3, n], 1)]
        {
            for op in [Softmax::new(dim), Softmax::log(dim)] {
                let x = Array::random("x", &shape).map(|v| 4.0 * v);
                check(&op, &[x], &|x| vec![compute_reference(op, &x[0])]);
            }
        }
    }
}

#[test]
fn large_ranges_neither_overflow_nor_underflow() {
    let x = Array::new(&[2, 4], vec![1000.0, 999.0, -1000.0, 998.5, -3.4e38, -3.4e38, 300.0, -3.4e38]);
    for op in [Softmax::new(1), Softmax::log(1), Softmax::new(0)] {
        check_non_finite(&op, std::slice::from_ref(&x), &|x| vec![compute_reference(op, &x[0])]);
    }
}

#[test]
fn non_finite_values_behave_as_in_pytorch() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let rows = vec![nan, 1.0, 2.0, inf, 1.0, 2.0, -inf, 1.0, 2.0, -inf, -inf, -inf, -inf, nan, inf];
    let x = Array::new(&[5, 3], rows);
    for op in [Softmax::new(1), Softmax::log(1), Softmax::new(0), Softmax::log(0)] {
        check_non_finite(&op, std::slice::from_ref(&x), &|x| vec![compute_reference(op, &x[0])]);
    }
}
