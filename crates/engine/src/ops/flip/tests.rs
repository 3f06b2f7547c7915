use super::{Flip, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

fn flip(dims: &[usize]) -> Flip {
    Flip { dims: dims.to_vec() }
}

every_variant! {
    kernels::flip::KERNELS;
    fn equals_the_reference() {
        for n in [1, 63, 64, 65, 257] {
            let cases: [(&[usize], &[usize]); 6] = [
                (&[n], &[0]),
                (&[n, 3], &[0]),
                (&[3, n], &[1]),
                (&[2, n, 65], &[1]),
                (&[2, n, 5], &[0, 1, 2]),
                (&[n, 2], &[]),
            ];
            for (shape, dims) in cases {
                check(&flip(dims), &[Array::random("x", shape)], &|x| vec![compute_reference(&x[0], dims)]);
            }
        }
    }
}

#[test]
fn storage_types_and_non_finite_values_are_flipped() {
    for dtype in [DType::I32, DType::F16, DType::BF16] {
        let x = Array::random("x", &[5, 7]).map(|v| (v * 100.0).floor()).stored(dtype);
        check(&flip(&[1]), std::slice::from_ref(&x), &|x| vec![compute_reference(&x[0], &[1])]);
    }
    let x = Array::new(&[4], vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
    check_non_finite(&flip(&[0]), &[x], &|x| vec![compute_reference(&x[0], &[0])]);
    check_non_finite(&flip(&[0]), &[Array::new(&[0, 3], vec![])], &|x| vec![compute_reference(&x[0], &[0])]);
}

#[test]
fn dims_out_of_range_are_refused() {
    assert!(flip(&[2]).outputs(&[&Spec::f32([2, 3])]).unwrap_err().message.starts_with("flip"));
}
