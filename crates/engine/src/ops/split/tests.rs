use super::{Split, plain::plain};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, check, compare, contexts, read};

fn holds(x: Array, dim: usize, sizes: &[usize]) {
    check(&Split { dim, sizes: sizes.to_vec() }, &[x], &|x| plain(&x[0], dim, sizes));
}

#[test]
fn equals_the_plain_form() {
    for n in [1, 63, 65, 257] {
        holds(Array::random("x", &[n, 4]), 1, &[1, 1, 2]);
        holds(Array::random("x", &[7, n]), 0, &[3, 0, 4]);
        holds(Array::random("x", &[2, 9, n]), 1, &[4, 5]);
    }
    holds(Array::random("x", &[3000]), 0, &[3000]);
}

#[test]
fn every_storage_type() {
    for dtype in [DType::I32, DType::F16, DType::BF16] {
        holds(Array::random("x", &[5, 7]).map(|v| (v * 100.0).floor()).stored(dtype), 1, &[3, 4]);
    }
}

#[test]
fn a_piece_without_a_gradient_leaves_zeros() {
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
fn sizes_are_checked() {
    for (dim, sizes) in [(1, vec![3]), (0, vec![1, 1]), (0, vec![4])] {
        assert!(Split { dim, sizes }.outputs(&[&Spec::f32([3])]).unwrap_err().message.starts_with("split"));
    }
}
