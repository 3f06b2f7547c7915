use super::{AvgPool, reference::compute_reference};
use crate::ops::checks::{Array, check, check_non_finite};
use crate::ops::max_pool::tests::list_windows;

#[test]
fn equals_the_reference() {
    for count_padding in [false, true] {
        let check_pool = |window, shape: &[usize]| {
            let op = AvgPool { window, count_padding };
            check(&op, &[Array::random("x", shape)], &|x| vec![compute_reference(&op, &x[0])]);
        };
        for n in [4, 63, 64, 65, 257] {
            for window in list_windows(1) {
                check_pool(window.clone(), &[2, n]);
                check_pool(window, &[n, 4]);
            }
        }
        for window in list_windows(2) {
            check_pool(window, &[2, 3, 7, 8]);
        }
        for window in list_windows(3) {
            check_pool(window, &[2, 3, 4, 6]);
        }
    }
}

#[test]
fn non_finite_values_stay_in_their_windows() {
    let x = Array::new(&[6], vec![1.0, f64::NAN, 3.0, 4.0, f64::INFINITY, 2.0]);
    for window in list_windows(1) {
        let op = AvgPool { window, count_padding: true };
        check_non_finite(&op, std::slice::from_ref(&x), &|x| vec![compute_reference(&op, &x[0])]);
    }
}
