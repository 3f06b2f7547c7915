use super::{RmsNorm, reference::compute_reference};
use crate::dtype::DType;
use crate::ops::checks::{Array, check, check_non_finite};

const OP: RmsNorm = RmsNorm { eps: 1e-5 };

#[test]
fn equals_the_reference() {
    // For rows of one element the gradient of x is 0 except for the effect of ε.
    for n in [5, 63, 64, 65, 257] {
        for rows in [vec![1], vec![3], vec![2, 65]] {
            let x = Array::random("x", &[&rows[..], &[n]].concat()).map(|v| v + 0.1);
            let w = Array::random("w", &[n]).map(|v| v + 1.5);
            check(&OP, &[x.clone(), w], &|x| vec![compute_reference(&x[0], Some(&x[1]), None, 1e-5, false)]);
            check(&OP, &[x], &|x| vec![compute_reference(&x[0], None, None, 1e-5, false)]);
        }
    }
}

#[test]
fn rows_of_one_element_equal_the_reference() {
    let inputs = [Array::random("x", &[3, 1]), Array::random("w", &[1])];
    check_non_finite(&OP, &inputs, &|x| vec![compute_reference(&x[0], Some(&x[1]), None, 1e-5, false)]);
}

#[test]
fn frozen_half_weights_equal_the_reference() {
    for dtype in [DType::F16, DType::BF16] {
        let x = Array::random("x", &[5, 65]);
        let w = Array::random("w", &[65]).stored(dtype);
        check(&OP, &[x, w], &|x| vec![compute_reference(&x[0], Some(&x[1]), None, 1e-5, false)]);
    }
}

#[test]
fn non_finite_values_stay_in_their_rows() {
    let x = Array::new(&[3, 3], vec![f64::NAN, 1.0, 2.0, 1.0, 2.0, 3.0, f64::INFINITY, 1.0, -1.0]);
    let w = Array::random("w", &[3]);
    check_non_finite(&OP, &[x, w], &|x| vec![compute_reference(&x[0], Some(&x[1]), None, 1e-5, false)]);
}
