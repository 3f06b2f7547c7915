use super::{AvgPool, plain::plain};
use crate::ops::checks::{Array, check, check_non_finite};
use crate::ops::max_pool::tests::windows;

#[test]
fn equals_the_plain_form() {
    for count_padding in [false, true] {
        let held = |window, shape: &[usize]| {
            let op = AvgPool { window, count_padding };
            check(&op, &[Array::random("x", shape)], &|x| vec![plain(&op, &x[0])]);
        };
        for n in [4, 63, 64, 65, 257] {
            for window in windows(1) {
                held(window.clone(), &[2, n]);
                held(window, &[n, 4]);
            }
        }
        for window in windows(2) {
            held(window, &[2, 3, 7, 8]);
        }
        for window in windows(3) {
            held(window, &[2, 3, 4, 6]);
        }
    }
}

#[test]
fn non_finite_values_keep_to_their_windows() {
    let x = Array::new(&[6], vec![1.0, f64::NAN, 3.0, 4.0, f64::INFINITY, 2.0]);
    for window in windows(1) {
        let op = AvgPool { window, count_padding: true };
        check_non_finite(&op, std::slice::from_ref(&x), &|x| vec![plain(&op, &x[0])]);
    }
}
