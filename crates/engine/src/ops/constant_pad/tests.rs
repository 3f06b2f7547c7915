use super::{ConstantPad, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

fn check_padding(x: Array, padding: &[[usize; 2]], value: f64) {
    let op = ConstantPad { padding: padding.to_vec(), value };
    check(&op, &[x], &|x| vec![compute_reference(&op, &x[0])]);
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        check_padding(Array::random("x", &[n]), &[[2, 1]], 0.0);
        check_padding(Array::random("x", &[n, 3]), &[[0, 3], [1, 0]], 1.5);
        check_padding(Array::random("x", &[2, 3, n]), &[[1, 1], [2, 0]], -2.0);
        check_padding(Array::random("x", &[n, 4]), &[], 1.0);
    }
    check_padding(Array::random("x", &[3, 2000]), &[[1, 1], [70, 3]], 3.0);
}

#[test]
fn storage_types_empty_inputs_and_infinities_are_padded() {
    for dtype in [DType::I32, DType::F16, DType::BF16] {
        let x = Array::random("x", &[5, 7]).map(|v| (v * 100.0).floor()).stored(dtype);
        check_padding(x, &[[1, 2], [3, 0]], 4.0);
    }
    for (x, value) in [(Array::new(&[0, 2], vec![]), 1.0), (Array::random("x", &[2, 2]), f64::NEG_INFINITY)] {
        let op = ConstantPad { padding: vec![[1, 1], [0, 0]], value };
        check_non_finite(&op, &[x], &|x| vec![compute_reference(&op, &x[0])]);
    }
}

#[test]
fn too_many_padded_dimensions_are_refused() {
    let op = ConstantPad { padding: vec![[1, 1]; 2], value: 0.0 };
    assert!(op.outputs(&[&Spec::f32([3])]).unwrap_err().message.starts_with("pad"));
}
