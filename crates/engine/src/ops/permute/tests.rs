use super::{Permute, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::{Op, run1};
use crate::ops::checks::{Array, check, check_non_finite, contexts};

#[test]
fn equals_the_reference() {
    let cases: [(&[usize], &[usize]); 14] = [
        (&[1, 1], &[1, 0]),
        (&[63, 64], &[1, 0]),
        (&[65, 63], &[1, 0]),
        (&[257, 65], &[1, 0]),
        (&[3, 65, 17], &[0, 2, 1]),
        (&[5, 17, 33], &[2, 1, 0]),
        (&[4, 3, 257], &[1, 0, 2]),
        (&[2, 64, 3, 16], &[0, 2, 1, 3]),
        (&[2, 5, 3, 16], &[3, 1, 0, 2]),
        (&[16, 16, 2], &[1, 0, 2]),
        (&[2, 3, 4, 5, 2, 3], &[5, 3, 1, 4, 2, 0]),
        (&[1, 64, 1], &[2, 1, 0]),
        (&[7], &[0]),
        (&[], &[]),
    ];
    for (shape, order) in cases {
        for dtype in [DType::F32, DType::I32, DType::F16, DType::BF16] {
            let x =
                Array::random("x", shape).map(|v| if dtype == DType::I32 { (v * 1e6).floor() } else { v });
            check(&Permute::new(order), &[x.stored(dtype)], &|x| vec![compute_reference(&x[0], order)]);
        }
    }
}

#[test]
fn non_finite_values_are_permuted() {
    let x = Array::new(&[2, 2], vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
    check_non_finite(&Permute::new(&[1, 0]), &[x], &|x| vec![compute_reference(&x[0], &[1, 0])]);
}

#[test]
fn moving_dimensions_of_size_1_launches_nothing() {
    for cx in contexts() {
        let x = Array::random("x", &[1, 5, 1, 3]).upload(&cx);
        let before = cx.launches();
        let y = run1(&cx, &Permute::new(&[1, 2, 0, 3]), &[&x]).unwrap();
        assert_eq!((&y.shape[..], cx.launches()), (&[5, 1, 1, 3][..], before));
    }
}

#[test]
fn incomplete_orders_are_refused() {
    for order in [&[0, 1][..], &[0, 0, 1], &[0, 1, 3]] {
        let error = Permute::new(order).outputs(&[&Spec::f32([2, 3, 4])]).unwrap_err();
        assert!(error.message.contains("permute") && error.message.contains("[2, 3, 4]"), "{error}");
    }
}
