use super::{Split, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, check, compare, contexts, read};

fn check_split(x: Array, dim: usize, sizes: &[usize]) {
    check(&Split { dim, sizes: sizes.to_vec() }, &[x], &|x| compute_reference(&x[0], dim, sizes));
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 65, 257] {
        check_split(Array::random("x", &[n, 4]), 1, &[1, 1, 2]);
        check_split(Array::random("x", &[7, n]), 0, &[3, 0, 4]);
        check_split(Array::random("x", &[2, 9, n]), 1, &[4, 5]);
    }
    check_split(Array::random("x", &[3000]), 0, &[3000]);
}

#[test]
fn every_storage_type_is_split() {
    for dtype in [DType::I32, DType::F16, DType::BF16] {
        check_split(Array::random("x", &[5, 7]).map(|v| (v * 100.0).floor()).stored(dtype), 1, &[3, 4]);
    }
}

#[test]
fn outputs_without_a_gradient_give_zeros() {
    for cx in contexts() {
        let op = Split { dim: 0, sizes: vec![1, 2] };
        let x = Array::random("x", &[3]).upload(&cx);
        let y = run(&cx, &op, &[&x]).unwrap();
        let d = vec![None, Some(Array::new(&[2], vec![4.0, 5.0]).upload(&cx))];
        let d_x = op.backward(&cx, &Backward::after(&op, &[x], &y, &[true], d)).unwrap();
        compare("d_x", &read(d_x[0].as_ref().unwrap()), &Array::new(&[3], vec![0.0, 4.0, 5.0]), 0.0);
    }
}

#[test]
fn wrong_sizes_are_refused() {
    for (dim, sizes) in [(1, vec![3]), (0, vec![1, 1]), (0, vec![4])] {
        assert!(Split { dim, sizes }.outputs(&[&Spec::f32([3])]).unwrap_err().message.starts_with("split"));
    }
}
