use super::{AdaptiveAvgPool, reference::compute_reference};
use crate::context::Spec;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

#[test]
fn equals_the_reference() {
    let check_pool = |out: &[usize], shape: &[usize]| {
        let op = AdaptiveAvgPool { out: out.to_vec() };
        check(&op, &[Array::random("x", shape)], &|x| vec![compute_reference(&op, &x[0])]);
    };
    for n in [1, 63, 64, 65, 257] {
        for out in [1, 2, 5, 64] {
            check_pool(&[out], &[2, n]);
        }
        check_pool(&[2], &[n, 3]);
    }
    check_pool(&[3, 4], &[2, 3, 7, 8]);
    check_pool(&[9, 2], &[2, 4, 5]);
    check_pool(&[2, 3, 1], &[2, 3, 7, 4]);
}

#[test]
fn non_finite_values_stay_in_their_windows() {
    let op = AdaptiveAvgPool { out: vec![3] };
    let x = Array::new(&[5], vec![1.0, f64::NAN, 3.0, 4.0, f64::INFINITY]);
    check_non_finite(&op, &[x], &|x| vec![compute_reference(&op, &x[0])]);
}

#[test]
fn an_empty_input_is_refused() {
    let message = AdaptiveAvgPool { out: vec![2] }.outputs(&[&Spec::f32([2, 0])]).unwrap_err().message;
    assert_eq!(message, "adaptiveAvgPool: an input of shape [2, 0] into [2]");
}
