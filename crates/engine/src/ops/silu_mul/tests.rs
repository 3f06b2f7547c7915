use super::{SiluMul, plain::plain};
use crate::error::Code;
use crate::op::run1;
use crate::ops::checks::{Array, check, check_non_finite, contexts};

#[test]
fn equals_the_plain_form() {
    for shape in [vec![1], vec![63], vec![64], vec![65, 3], vec![257, 65], vec![2, 3, 130]] {
        let x = [Array::random("gate", &shape).map(|v| v * 6.0), Array::random("up", &shape)];
        check(&SiluMul, &x, &plain);
    }
}

#[test]
fn non_finite_values_stay_where_they_are() {
    let special = [f64::NAN, f64::INFINITY, 0.0, 1.5, -3.0];
    let gate = Array::from_fn(&[5, 5], |i| special[i[0]]);
    let up = Array::from_fn(&[5, 5], |i| special[i[1]]);
    check_non_finite(&SiluMul, &[gate, up], &plain);
}

#[test]
fn shapes_that_differ_are_refused() {
    let cx = &contexts()[0];
    let [gate, up] = [[2, 3], [3, 2]].map(|s| Array::random("x", &s).upload(cx));
    let error = run1(cx, &SiluMul, &[&gate, &up]).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::ShapeMismatch, "silu_mul: gate [2, 3] and up [3, 2] differ")
    );
}
