use super::{Mode, Pad, reference::compute_reference};
use crate::context::Spec;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

const MODES: [Mode; 3] = [Mode::Reflect, Mode::Replicate, Mode::Circular];

fn check_pad(mode: Mode, shape: &[usize], padding: &[[usize; 2]]) {
    let op = Pad { mode, padding: padding.to_vec() };
    check(&op, &[Array::random("x", shape)], &|x| vec![compute_reference(&op, &x[0])]);
}

every_variant! {
    kernels::pad::KERNELS;
    fn equals_the_reference() {
        for mode in MODES {
            for n in [3, 63, 64, 65, 257] {
                check_pad(mode, &[2, n], &[[2, 1]]);
                check_pad(mode, &[n, 3], &[[0, 2]]);
            }
            check_pad(mode, &[2, 2, 4, 5], &[[3, 0], [2, 4]]);
            check_pad(mode, &[2, 3, 4, 3], &[[2, 1], [0, 3], [1, 2]]);
            check_pad(mode, &[2, 3, 65], &[[1, 2], [0, 0]]);
            check_pad(mode, &[2, 5], &[[0, 0]]);
        }
        check_pad(Mode::Replicate, &[2, 1, 2], &[[5, 3], [0, 7]]);
        check_pad(Mode::Circular, &[1, 1], &[[1, 1]]);
        check_pad(Mode::Circular, &[4], &[[4, 4]]);
    }
}

#[test]
fn non_finite_values_are_copied() {
    for mode in MODES {
        let op = Pad { mode, padding: vec![[1, 2]] };
        let x = Array::new(&[4], vec![1.0, f64::NAN, f64::INFINITY, 2.0]);
        check_non_finite(&op, &[x], &|x| vec![compute_reference(&op, &x[0])]);
    }
}

#[test]
fn padding_beyond_the_input_is_refused() {
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
