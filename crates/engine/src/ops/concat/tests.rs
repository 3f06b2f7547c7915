use super::{Concat, reference::compute_reference};
use crate::context::{Spec, Value};
use crate::dtype::DType;
use crate::op::{Op, run1};
use crate::ops::checks::{Array, check, check_non_finite, contexts, read};
use crate::ops::permute::Permute;
use crate::ops::reshape::Reshape;
use crate::ops::slice::Slice;

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for dim in 0..3 {
            let draw_input = |name: &str, size: usize| {
                let mut shape = [3, 4, 5];
                shape[dim] = size;
                Array::random(name, &shape)
            };
            let inputs = [draw_input("a", n), draw_input("b", 2), draw_input("c", 1)];
            check(&Concat { dim }, &inputs, &|x| vec![compute_reference(x, dim)]);
            check(&Concat { dim }, &inputs[..1], &|x| vec![compute_reference(x, dim)]);
        }
    }
}

#[test]
fn every_storage_type_is_concatenated() {
    for dtype in [DType::I32, DType::F16, DType::BF16] {
        for dim in 0..2 {
            let inputs =
                [[3, 5], [3, 5]].map(|s| Array::random("x", &s).map(|v| (v * 100.0).floor()).stored(dtype));
            check(&Concat { dim }, &inputs, &|x| vec![compute_reference(x, dim)]);
        }
    }
}

/// Labels are shifted by one like this, and a loss needs them on the host.
#[test]
fn known_host_values_are_propagated() {
    let labels = Array::indices("labels", &[3, 5], 100);
    let ignored = Array { dtype: DType::I32, ..Array::new(&[3, 1], vec![-100.0; 3]) };
    for cx in contexts() {
        let (labels, ignored) = (labels.upload(&cx), ignored.upload(&cx));
        let check_host_copy = |y: &Value| {
            let host: Vec<f64> = y.host().unwrap().iter().map(|v| *v as f64).collect();
            assert_eq!(host, read(y).data);
        };
        let rest = run1(&cx, &Slice { dim: 1, start: 1, end: 5 }, &[&labels]).unwrap();
        check_host_copy(&rest);
        let shifted = run1(&cx, &Concat { dim: 1 }, &[&rest, &ignored]).unwrap();
        check_host_copy(&shifted);
        check_host_copy(&run1(&cx, &Reshape { shape: [15].into() }, &[&shifted]).unwrap());
        check_host_copy(&run1(&cx, &Permute::new(&[1, 0]), &[&shifted]).unwrap());
        ignored.storage.record_write();
        assert!(run1(&cx, &Concat { dim: 1 }, &[&rest, &ignored]).unwrap().host().is_none());
    }
}

#[test]
fn empty_inputs_add_nothing() {
    let inputs = [Array::random("a", &[2, 0]), Array::random("b", &[2, 3])];
    check(&Concat { dim: 1 }, &inputs, &|x| vec![compute_reference(x, 1)]);
}

#[test]
fn non_finite_values_are_copied() {
    let x = Array::new(&[3], vec![f64::NAN, f64::INFINITY, 1.0]);
    check_non_finite(&Concat { dim: 0 }, &[x.clone(), x], &|x| vec![compute_reference(x, 0)]);
}

#[test]
fn mismatched_inputs_are_refused() {
    let cases = [
        (Spec::f32([2, 3]), Spec::f32([3, 4])),
        (Spec::f32([2, 3]), Spec::f32([2])),
        (Spec::f32([2, 3]), Spec { dtype: DType::I32, ..Spec::f32([2, 3]) }),
    ];
    for (a, b) in cases {
        let error = Concat { dim: 0 }.outputs(&[&a, &b]).unwrap_err();
        assert!(error.message.starts_with("concat"), "{error}");
    }
}
