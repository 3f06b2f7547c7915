use super::{Slice, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::{Backward, Destinations, Op, run};
use crate::ops::checks::{Array, check, check_non_finite, contexts, read};

fn slice(dim: usize, start: usize, end: usize) -> Slice {
    Slice { dim, start, end }
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in [(vec![n], 0), (vec![n, 3], 0), (vec![3, n], 1), (vec![2, n, 65], 1)] {
            for s in [
                slice(dim, 0, n),
                slice(dim, n / 3, n - n / 4),
                slice(dim, n - 1, n),
                slice(dim, n / 2, n / 2),
            ] {
                check(&s, &[Array::random("x", &shape)], &|x| vec![compute_reference(&x[0], s)]);
            }
        }
    }
}

#[test]
fn every_storage_type_is_sliced() {
    for dtype in [DType::I32, DType::F16, DType::BF16] {
        let x = Array::random("x", &[5, 7]).map(|v| (v * 100.0).floor()).stored(dtype);
        for s in [slice(1, 1, 6), slice(0, 1, 4)] {
            check(&s, std::slice::from_ref(&x), &|x| vec![compute_reference(&x[0], s)]);
        }
    }
}

#[test]
fn non_finite_values_are_copied() {
    let x = Array::new(&[5], vec![1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2.0]);
    check_non_finite(&slice(0, 1, 5), &[x], &|x| vec![compute_reference(&x[0], slice(0, 1, 5))]);
}

#[test]
fn slices_out_of_range_are_refused() {
    for s in [slice(2, 0, 1), slice(1, 2, 4), slice(0, 2, 1)] {
        let error = s.outputs(&[&Spec::f32([2, 3])]).unwrap_err();
        assert!(error.message.starts_with("slice") && error.message.contains("[2, 3]"), "{error}");
    }
}

#[test]
fn gradients_accumulate_into_an_existing_gradient() {
    for s in [slice(0, 1, 3), slice(1, 2, 7), slice(2, 0, 1)] {
        let x = Array::random("x", &[5, 7, 3]);
        let d = Array::random("d", &compute_reference(&x, s).shape);
        let existing = Array::random("given", &x.shape);
        for cx in contexts() {
            let values = [x.upload(&cx)];
            let outputs = run(&cx, &s, &[&values[0]]).unwrap();
            let mut pass = Backward::after(&s, &values, &outputs, &[true], vec![Some(d.upload(&cx))]);
            let gradient = read(s.backward(&cx, &pass).unwrap()[0].as_ref().unwrap());
            pass.into = Destinations::new(vec![Some((existing.upload(&cx), true))]);
            let sum = read(s.backward(&cx, &pass).unwrap()[0].as_ref().unwrap());
            assert!(pass.into.is_used(0));
            let expected =
                gradient.data.iter().zip(&existing.data).map(|(a, b)| (*a as f32 + *b as f32) as f64);
            assert_eq!(sum.data, expected.collect::<Vec<_>>(), "{s:?} on {}", cx.profile.label);
        }
    }
}
