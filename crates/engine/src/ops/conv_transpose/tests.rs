use super::{ConvTranspose, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};
use crate::ops::conv::Conv;

fn check_conv(op: &ConvTranspose, inputs: &[Array]) {
    check(op, inputs, &|x| vec![compute_reference(op, &x[0], &x[1])]);
}

/// Returns x [batch, channels, *size] and a weight [channels, out / groups, *kernel].
fn draw_inputs(
    op: &ConvTranspose,
    batch: usize,
    [channels, out]: [usize; 2],
    sizes: [&[usize]; 2],
) -> Vec<Array> {
    let [size, kernel] = sizes;
    let x = [&[batch, channels], size].concat();
    let weight = [&[channels, out / op.conv.groups], kernel].concat();
    vec![Array::random("x", &x), Array::random("weight", &weight)]
}

/// The same parameters for every dimension.
fn make_transposed(
    dims: usize,
    stride: usize,
    padding: [usize; 2],
    dilation: usize,
    more: usize,
) -> ConvTranspose {
    let conv = Conv {
        stride: vec![stride; dims],
        padding: vec![padding; dims],
        dilation: vec![dilation; dims],
        groups: 1,
    };
    ConvTranspose { conv, output_padding: vec![more; dims] }
}

fn with_groups(mut op: ConvTranspose, groups: usize) -> ConvTranspose {
    op.conv.groups = groups;
    op
}

#[test]
fn sizes_around_tile_ends_equal_the_reference() {
    let op = make_transposed(1, 2, [1, 1], 1, 1);
    for n in [1, 63, 64, 65, 257] {
        check_conv(&op, &draw_inputs(&op, 2, [3, 5], [&[n], &[3]]));
        check_conv(&op, &draw_inputs(&op, 1, [n, 2], [&[4], &[3]]));
        check_conv(&op, &draw_inputs(&op, 1, [2, n], [&[5], &[2]]));
    }
}

#[test]
fn two_dimensional_geometries_equal_the_reference() {
    for (stride, padding, dilation, more) in [
        (1, [0, 0], 1, 0),
        (1, [1, 1], 1, 0),
        (2, [0, 0], 1, 0),
        (2, [1, 1], 1, 1),
        (3, [2, 0], 2, 2),
        // An output padding above the stride: elements at the end that have no tap.
        (1, [0, 0], 3, 2),
        (4, [0, 1], 1, 3),
    ] {
        for groups in [1, 2] {
            let op = with_groups(make_transposed(2, stride, padding, dilation, more), groups);
            check_conv(&op, &draw_inputs(&op, 2, [4, 6], [&[5, 4], &[3, 2]]));
        }
    }
    // Kernel and stride of equal size, and a stride above the kernel size: elements that have no tap.
    let op = make_transposed(2, 2, [0, 0], 1, 0);
    check_conv(&op, &draw_inputs(&op, 2, [5, 3], [&[6, 7], &[2, 2]]));
    let op = make_transposed(2, 3, [0, 0], 1, 0);
    check_conv(&op, &draw_inputs(&op, 1, [3, 2], [&[4, 3], &[2, 1]]));
    let op = with_groups(make_transposed(2, 2, [1, 1], 1, 1), 6);
    check_conv(&op, &draw_inputs(&op, 2, [6, 6], [&[5, 4], &[3, 3]]));
}

/// Shapes that the processor computes with tiles of 2 × 2, forward and backward.
#[test]
fn winograd_shapes_equal_the_reference() {
    let op = make_transposed(2, 1, [1, 1], 1, 0);
    check_conv(&op, &draw_inputs(&op, 4, [33, 34], [&[8, 7], &[3, 3]]));
}

#[test]
fn three_dimensions_equal_the_reference() {
    let op = make_transposed(3, 2, [1, 0], 1, 1);
    check_conv(&op, &draw_inputs(&op, 2, [2, 3], [&[2, 3, 4], &[3, 2, 2]]));
}

#[test]
fn half_weights_equal_the_reference() {
    let op = make_transposed(2, 2, [1, 1], 1, 0);
    let [x, weight] = <[Array; 2]>::try_from(draw_inputs(&op, 2, [4, 6], [&[5, 3], &[3, 3]])).unwrap();
    for dtype in [DType::F16, DType::BF16] {
        check_conv(&op, &[x.clone(), weight.stored(dtype)]);
    }
}

#[test]
fn infinities_reach_the_outputs_that_read_them() {
    let op = make_transposed(1, 2, [0, 0], 1, 0);
    let [mut x, weight] = <[Array; 2]>::try_from(draw_inputs(&op, 1, [1, 2], [&[5], &[3]])).unwrap();
    x.data[2] = f64::INFINITY;
    check_non_finite(&op, &[x, weight.map(|w| w.abs() + 0.5)], &|x| {
        vec![compute_reference(&op, &x[0], &x[1])]
    });
}

#[test]
fn invalid_geometries_are_refused() {
    let op = make_transposed(2, 2, [1, 1], 1, 0);
    let error = |op: &ConvTranspose, x: &[usize], weight: &[usize]| {
        op.outputs(&[&Spec::f32(x), &Spec::f32(weight)]).unwrap_err().to_string()
    };
    assert!(
        error(&op, &[1, 3, 4, 4], &[2, 1, 3, 3]).contains("the input has 3 channels, the weight takes 2")
    );
    assert!(error(&op, &[3, 4, 4], &[2, 1, 3, 3]).contains("of 4 dimensions"));
    assert!(error(&op, &[1, 2, 1, 1], &[2, 1, 1, 1]).contains("leaves nothing of 1"));
    assert!(
        error(&make_transposed(2, 2, [0, 0], 1, 2), &[1, 2, 2, 2], &[2, 1, 2, 2])
            .contains("output padding of 2")
    );
    assert!(error(&with_groups(op, 2), &[1, 3, 4, 4], &[3, 1, 3, 3]).contains("2 groups do not divide 3"));
}
