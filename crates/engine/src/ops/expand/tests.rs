use super::{Expand, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

fn expand(shape: &[usize]) -> Expand {
    Expand { shape: shape.into() }
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        let cases: [(&[usize], &[usize]); 7] = [
            (&[1], &[n]),
            (&[], &[2, n]),
            (&[n], &[3, n]),
            (&[n, 1], &[n, 5]),
            (&[2, 1, 3], &[4, 2, n, 3]),
            (&[1, n, 1, 2, 1], &[2, n, 3, 2, 2]),
            // The gradient of this one is 0.
            (&[1, n], &[0, n]),
        ];
        for (from, to) in cases {
            check(&expand(to), &[Array::random("x", from)], &|x| vec![compute_reference(&x[0], to)]);
        }
    }
}

#[test]
fn storage_types_and_empty_shapes_equal_the_reference() {
    for dtype in [DType::I32, DType::F16, DType::BF16] {
        let x = Array::random("x", &[5, 1]).map(|v| (v * 100.0).floor()).stored(dtype);
        check(&expand(&[5, 7]), std::slice::from_ref(&x), &|x| vec![compute_reference(&x[0], &[5, 7])]);
    }
    check_non_finite(&expand(&[0, 3]), &[Array::random("x", &[1, 3])], &|x| {
        vec![compute_reference(&x[0], &[0, 3])]
    });
}

#[test]
fn incompatible_shapes_are_refused() {
    for (from, to) in [(&[2, 3][..], &[3][..]), (&[2], &[3]), (&[3], &[3, 1])] {
        let x = Spec::f32(from);
        assert!(expand(to).outputs(&[&x]).unwrap_err().message.starts_with("expand"));
    }
}
