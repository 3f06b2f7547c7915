use super::{Cumsum, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], 0), (vec![n, 3], 0), (vec![3, n], 1), (vec![2, n, 65], 1), (vec![4, n, 1], 2)]
        {
            check(&Cumsum { dim }, &[Array::random("x", &shape)], &|x| vec![compute_reference(&x[0], dim)]);
        }
    }
}

/// Rows larger than a binding of 4 KiB, with sums that continue from window to window.
#[test]
fn long_rows_equal_the_reference() {
    for (shape, dim) in [(vec![2, 5000], 1), (vec![5000, 3], 0)] {
        check(&Cumsum { dim }, &[Array::random("x", &shape)], &|x| vec![compute_reference(&x[0], dim)]);
    }
}

#[test]
fn non_finite_values_propagate_to_the_end() {
    let x = Array::new(&[2, 3], vec![1.0, f64::INFINITY, 1.0, f64::NAN, 1.0, f64::NEG_INFINITY]);
    for dim in [0, 1] {
        check_non_finite(&Cumsum { dim }, std::slice::from_ref(&x), &|x| vec![compute_reference(&x[0], dim)]);
    }
    check_non_finite(&Cumsum { dim: 1 }, &[Array::new(&[2, 0], vec![])], &|x| vec![x[0].clone()]);
}

#[test]
fn wrong_dims_and_dtypes_are_refused() {
    let whole = Spec { dtype: DType::I32, ..Spec::f32([2]) };
    for (x, dim) in [(&Spec::f32([2]), 1), (&whole, 0)] {
        assert!(Cumsum { dim }.outputs(&[x]).unwrap_err().message.starts_with("cumsum"));
    }
}
