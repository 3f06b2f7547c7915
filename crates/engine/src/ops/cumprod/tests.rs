use super::{Cumprod, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

/// Factors near ±1, so that products neither vanish nor overflow.
fn draw_factors(name: &str, shape: &[usize]) -> Array {
    Array::random(name, shape).map(|v| v.signum() * (1.0 + 0.1 * v))
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], 0), (vec![n, 3], 0), (vec![3, n], 1), (vec![2, n, 65], 1), (vec![4, n, 1], 2)]
        {
            check(&Cumprod { dim }, &[draw_factors("x", &shape)], &|x| vec![compute_reference(&x[0], dim)]);
        }
    }
}

#[test]
fn gradients_beside_zeros_are_exact() {
    for zeros in [&[0][..], &[4], &[8], &[2, 5], &[2, 3], &[0, 8]] {
        for (shape, dim) in [(vec![9], 0), (vec![9, 3], 0), (vec![2, 9], 1)] {
            let inner: usize = shape[dim + 1..].iter().product();
            let mut x = draw_factors("x", &shape);
            for (i, v) in x.data.iter_mut().enumerate() {
                // The last line has no zeros.
                if zeros.contains(&(i / inner % 9)) && (shape.len() == 1 || i % inner + i / 9 == 0) {
                    *v = 0.0;
                }
            }
            check(&Cumprod { dim }, &[x], &|x| vec![compute_reference(&x[0], dim)]);
        }
    }
}

/// Lines longer than a binding of 4 KiB: the product continues from window to window.
#[test]
fn long_lines_equal_the_reference() {
    for (shape, dim) in [(vec![2, 3000], 1), (vec![3000, 3], 0)] {
        // Near 1, so that roundings go in both directions.
        let x = Array::random("x", &shape).map(|v| 1.0 + 0.02 * v);
        check(&Cumprod { dim }, &[x], &|x| vec![compute_reference(&x[0], dim)]);
    }
}

/// A part of the line after a zero overflows: the product stays 0.
#[test]
fn products_after_a_zero_stay_zero() {
    let x = Array::from_fn(&[200], |i| if i[0] == 0 { 0.0 } else { 10.0 });
    check_non_finite(&Cumprod { dim: 0 }, &[x], &|x| vec![compute_reference(&x[0], 0)]);
}

#[test]
fn non_finite_values_propagate_to_the_end() {
    let x = Array::new(&[2, 3], vec![1.0, f64::INFINITY, 1.0, f64::NAN, 1.0, f64::NEG_INFINITY]);
    check_non_finite(&Cumprod { dim: 1 }, std::slice::from_ref(&x), &|x| vec![compute_reference(&x[0], 1)]);
    check_non_finite(&Cumprod { dim: 1 }, &[Array::new(&[2, 0], vec![])], &|x| vec![x[0].clone()]);
}

#[test]
fn wrong_dims_and_dtypes_are_refused() {
    let whole = Spec { dtype: DType::I32, ..Spec::f32([2]) };
    for (x, dim) in [(&Spec::f32([2]), 1), (&whole, 0)] {
        assert!(Cumprod { dim }.outputs(&[x]).unwrap_err().message.starts_with("cumprod"));
    }
}
