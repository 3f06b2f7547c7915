use super::{AdaptiveAvgPool, plain::plain};
use crate::context::Spec;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

#[test]
fn equals_the_plain_form() {
    let held = |out: &[usize], shape: &[usize]| {
        let op = AdaptiveAvgPool { out: out.to_vec() };
        check(&op, &[Array::random("x", shape)], &|x| vec![plain(&op, &x[0])]);
    };
    for n in [1, 63, 64, 65, 257] {
        for out in [1, 2, 5, 64] {
            held(&[out], &[2, n]);
        }
        held(&[2], &[n, 3]);
    }
    held(&[3, 4], &[2, 3, 7, 8]);
    held(&[9, 2], &[2, 4, 5]);
    held(&[2, 3, 1], &[2, 3, 7, 4]);
}

#[test]
fn non_finite_values_keep_to_their_windows() {
    let op = AdaptiveAvgPool { out: vec![3] };
    let x = Array::new(&[5], vec![1.0, f64::NAN, 3.0, 4.0, f64::INFINITY]);
    check_non_finite(&op, &[x], &|x| vec![plain(&op, &x[0])]);
}

#[test]
fn nothing_to_take_the_mean_of() {
    let message = AdaptiveAvgPool { out: vec![2] }.outputs(&[&Spec::f32([2, 0])]).unwrap_err().message;
    assert_eq!(message, "adaptiveAvgPool: an input of shape [2, 0] into [2]");
}
