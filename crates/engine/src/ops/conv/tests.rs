use proptest::prelude::*;

use super::{Conv, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

fn check_conv(op: &Conv, inputs: &[Array]) {
    check(op, inputs, &|x| vec![compute_reference(op, &x[0], &x[1], x.get(2))]);
}

/// Returns x [batch, channels, *size] and a weight [out, channels / groups, *kernel].
fn draw_inputs(
    op: &Conv,
    batch: usize,
    [channels, out]: [usize; 2],
    size: &[usize],
    kernel: &[usize],
) -> Vec<Array> {
    let x = [&[batch, channels], size].concat();
    let weight = [&[out, channels / op.groups], kernel].concat();
    vec![Array::random("x", &x), Array::random("weight", &weight), Array::random("bias", &[out])]
}

/// The same parameters for every dimension.
fn make_conv(dims: usize, stride: usize, padding: [usize; 2], dilation: usize, groups: usize) -> Conv {
    Conv { stride: vec![stride; dims], padding: vec![padding; dims], dilation: vec![dilation; dims], groups }
}

#[test]
fn sizes_around_tile_ends_equal_the_reference() {
    let op = make_conv(1, 1, [1, 1], 1, 1);
    for n in [1, 63, 64, 65, 257] {
        check_conv(&op, &draw_inputs(&op, 2, [3, 5], &[n], &[3]));
        check_conv(&op, &draw_inputs(&op, 1, [n, 2], &[4], &[3]));
        check_conv(&op, &draw_inputs(&op, 1, [2, n], &[5], &[2]));
        check_conv(&op, &draw_inputs(&op, n, [1, 1], &[3], &[2]));
    }
    for n in [7, 8, 9, 12, 13, 16, 17, 31, 33] {
        check_conv(&op, &draw_inputs(&op, 1, [n, n], &[n], &[3]));
    }
}

#[test]
fn two_dimensional_geometries_equal_the_reference() {
    for (stride, padding, dilation) in [
        (1, [0, 0], 1),
        (1, [1, 1], 1),
        (1, [0, 1], 1),
        (2, [0, 0], 1),
        (2, [1, 2], 1),
        (3, [2, 0], 2),
        (1, [2, 2], 2),
        (2, [3, 3], 3),
        (4, [0, 3], 1),
    ] {
        for groups in [1, 2] {
            let op = make_conv(2, stride, padding, dilation, groups);
            check_conv(&op, &draw_inputs(&op, 2, [4, 6], &[9, 7], &[3, 2]));
        }
    }
    // Strides at which some residues have no tap.
    let op = make_conv(2, 3, [0, 0], 1, 1);
    check_conv(&op, &draw_inputs(&op, 1, [3, 2], &[10, 8], &[2, 1]));
}

#[test]
fn depthwise_and_pointwise_equal_the_reference() {
    let op = make_conv(2, 1, [1, 1], 1, 6);
    check_conv(&op, &draw_inputs(&op, 2, [6, 6], &[5, 8], &[3, 3]));
    check_conv(&op, &draw_inputs(&op, 2, [6, 12], &[5, 8], &[3, 3]));
    let op = make_conv(2, 1, [0, 0], 1, 1);
    check_conv(&op, &draw_inputs(&op, 2, [17, 13], &[6, 7], &[1, 1]));
    let op = make_conv(2, 4, [0, 0], 1, 1);
    check_conv(&op, &draw_inputs(&op, 2, [3, 9], &[16, 12], &[4, 4]));
}

#[test]
fn three_dimensions_equal_the_reference() {
    let op = Conv {
        stride: vec![1, 2, 1],
        padding: vec![[1, 0], [0, 1], [1, 1]],
        dilation: vec![1, 1, 2],
        groups: 2,
    };
    check_conv(&op, &draw_inputs(&op, 2, [4, 2], &[4, 5, 6], &[2, 3, 2]));
    let op = make_conv(3, 2, [1, 1], 1, 1);
    check_conv(&op, &draw_inputs(&op, 1, [2, 3], &[5, 4, 7], &[3, 3, 3]));
}

/// More terms than one register sum; parts that end within a channel's taps.
#[test]
fn long_sums_equal_the_reference() {
    let op = make_conv(2, 1, [1, 1], 1, 1);
    check_conv(&op, &draw_inputs(&op, 1, [130, 14], &[6, 5], &[3, 3]));
    let op = make_conv(1, 1, [0, 3], 1, 1);
    check_conv(&op, &draw_inputs(&op, 1, [3, 2], &[700], &[600]));
}

/// Shapes that the processor computes with tiles of 2 × 2, forward and backward.
#[test]
fn winograd_shapes_equal_the_reference() {
    let op = make_conv(2, 1, [1, 1], 1, 1);
    check_conv(&op, &draw_inputs(&op, 4, [33, 34], &[8, 7], &[3, 3]));
}

#[test]
fn frozen_half_weights_equal_the_reference() {
    for dtype in [DType::F16, DType::BF16] {
        for stride in [1, 2] {
            let op = make_conv(2, stride, [1, 1], 1, 1);
            let mut inputs = draw_inputs(&op, 2, [5, 15], &[7, 6], &[3, 3]);
            inputs[1] = inputs[1].stored(dtype);
            check_conv(&op, &inputs);
        }
    }
}

#[test]
fn non_finite_values_reach_the_outputs_that_read_them() {
    let op = make_conv(2, 1, [1, 1], 1, 1);
    for v in [f64::NAN, f64::INFINITY] {
        for operand in 0..3 {
            let mut inputs = draw_inputs(&op, 1, [2, 3], &[5, 4], &[3, 3]);
            // Far from the edge, where infinity times the padding would also give NaN.
            inputs[operand].data[if operand == 1 { 4 } else { 2 }] = v;
            check_non_finite(&op, &inputs, &|x| vec![compute_reference(&op, &x[0], &x[1], x.get(2))]);
        }
    }
}

#[test]
fn an_empty_batch_equals_the_reference() {
    let op = make_conv(2, 1, [1, 1], 1, 1);
    check_conv(&op, &draw_inputs(&op, 0, [2, 3], &[5, 4], &[3, 3]));
}

#[test]
fn invalid_geometries_are_refused() {
    let error = |op: &Conv, x: &[usize], w: &[usize]| {
        op.outputs(&[&Spec::f32(x), &Spec::f32(w)]).unwrap_err().message
    };
    assert_eq!(
        error(&make_conv(2, 1, [0, 0], 1, 2), &[1, 3, 5, 5], &[4, 1, 3, 3]),
        "conv: 2 groups do not divide 3 channels in and 4 out evenly"
    );
    assert_eq!(
        error(&make_conv(1, 1, [1, 0], 2, 1), &[1, 3, 4], &[4, 3, 4]),
        "conv: a kernel of 4 spans 7 elements at dilation 2, the padded input has 5 in dimension 2"
    );
    assert_eq!(
        error(&make_conv(1, 1, [0, 0], 1, 1), &[1, 3, 4], &[4, 2, 3]),
        "conv: an input of shape [1, 3, 4] in 1 groups does not fit a weight of shape [4, 2, 3]: the input has 3 channels, the weight takes 2"
    );
    assert_eq!(
        error(&make_conv(1, 0, [0, 0], 1, 1), &[1, 3, 4], &[4, 3, 3]),
        "conv: a stride is 1 to 32767, not 0"
    );
}

fn draw_geometry() -> impl Strategy<Value = (Conv, usize, [usize; 2], Vec<usize>, Vec<usize>)> {
    (1usize..4)
        .prop_flat_map(|dims| {
            let each = |values: std::ops::Range<usize>| prop::collection::vec(values, dims);
            let padding = prop::collection::vec([0usize..4, 0usize..4], dims);
            (
                (1usize..4, 1usize..4, 1usize..4, 0usize..3),
                each(1..8),
                each(1..4),
                each(1..4),
                padding,
                each(1..4),
            )
        })
        .prop_map(|((groups, channels, out, batch), extra, kernel, stride, padding, dilation)| {
            // The kernel fits the input.
            let size = (0..kernel.len())
                .map(|d| {
                    let span = dilation[d] * (kernel[d] - 1) + 1;
                    (span + extra[d] - 1).saturating_sub(padding[d][0] + padding[d][1]).max(1)
                })
                .collect();
            let op = Conv { stride, padding, dilation, groups };
            (op, batch, [groups * channels, groups * out], size, kernel)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn random_geometries_equal_the_reference((op, batch, channels, size, kernel) in draw_geometry()) {
        check_conv(&op, &draw_inputs(&op, batch, channels, &size, &kernel));
    }
}
