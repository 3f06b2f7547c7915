use super::{Mode, Pad, plain::plain};
use crate::context::Spec;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

const MODES: [Mode; 3] = [Mode::Reflect, Mode::Replicate, Mode::Circular];

fn held(mode: Mode, shape: &[usize], padding: &[[usize; 2]]) {
    let op = Pad { mode, padding: padding.to_vec() };
    check(&op, &[Array::random("x", shape)], &|x| vec![plain(&op, &x[0])]);
}

every_variant! {
    kernels::pad::KERNELS;
    fn equals_the_plain_form() {
        for mode in MODES {
            for n in [3, 63, 64, 65, 257] {
                held(mode, &[2, n], &[[2, 1]]);
                held(mode, &[n, 3], &[[0, 2]]);
            }
            held(mode, &[2, 2, 4, 5], &[[3, 0], [2, 4]]);
            held(mode, &[2, 3, 4, 3], &[[2, 1], [0, 3], [1, 2]]);
            held(mode, &[2, 3, 65], &[[1, 2], [0, 0]]);
            held(mode, &[2, 5], &[[0, 0]]);
        }
        held(Mode::Replicate, &[2, 1, 2], &[[5, 3], [0, 7]]);
        held(Mode::Circular, &[1, 1], &[[1, 1]]);
        held(Mode::Circular, &[4], &[[4, 4]]);
    }
}

#[test]
fn non_finite_values_are_copied() {
    for mode in MODES {
        let op = Pad { mode, padding: vec![[1, 2]] };
        let x = Array::new(&[4], vec![1.0, f64::NAN, f64::INFINITY, 2.0]);
        check_non_finite(&op, &[x], &|x| vec![plain(&op, &x[0])]);
    }
}

#[test]
fn more_padding_than_there_is_to_copy() {
    let error = |mode, padding| {
        let op = Pad { mode, padding: vec![padding] };
        op.outputs(&[&Spec::f32([2, 4])]).unwrap_err().message
    };
    assert_eq!(
        error(Mode::Reflect, [1, 4]),
        "pad: reflect takes padding of at most 3 for dimension 1 of shape [2, 4], not 4"
    );
    assert_eq!(
        error(Mode::Circular, [5, 0]),
        "pad: circular takes padding of at most 4 for dimension 1 of shape [2, 4], not 5"
    );
}
