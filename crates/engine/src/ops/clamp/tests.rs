use super::{Clamp, reference::compute_reference};
use crate::context::Spec;
use crate::error::Code;
use crate::op::{Backward, Op};
use crate::ops::checks::{Array, check, check_non_finite, contexts, read};

const BOUNDS: [Clamp; 4] = [
    Clamp { low: -0.5, high: 0.25 },
    Clamp { low: f64::NEG_INFINITY, high: 0.25 },
    Clamp { low: -0.5, high: f64::INFINITY },
    Clamp { low: 0.5, high: -0.5 },
];

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for clamp in BOUNDS {
            check(&clamp, &[Array::random("x", &[n, 3])], &|x| vec![compute_reference(clamp, &x[0])]);
        }
    }
}

#[test]
fn non_finite_values_are_clamped_or_kept() {
    let x = Array::new(&[4], vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1]);
    for clamp in BOUNDS {
        check_non_finite(&clamp, std::slice::from_ref(&x), &|x| vec![compute_reference(clamp, &x[0])]);
    }
}

#[test]
fn gradients_pass_at_the_bounds_but_not_at_nan() {
    let clamp = Clamp { low: -1.0, high: 1.0 };
    for cx in contexts() {
        let x = Array::new(&[5], vec![-1.0, 1.0, 1.5, f64::NAN, f64::INFINITY]).upload(&cx);
        let d = Array::new(&[5], vec![2.0, 3.0, f64::INFINITY, 4.0, 5.0]).upload(&cx);
        let x = std::slice::from_ref(&x);
        let d_x = clamp.backward(&cx, &Backward::after(&clamp, x, x, &[true], vec![Some(d)])).unwrap();
        assert_eq!(read(d_x[0].as_ref().unwrap()).data, [2.0, 3.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn nan_bounds_are_refused() {
    let error = Clamp { low: f64::NAN, high: 1.0 }.outputs(&[&Spec::f32([2])]).unwrap_err();
    assert!(error.code == Code::Option && error.message.starts_with("clamp"), "{error}");
}
