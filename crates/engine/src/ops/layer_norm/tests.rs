use super::{LayerNorm, reference::compute_reference};
use crate::dtype::DType;
use crate::ops::checks::{Array, check, check_non_finite};

#[allow(clippy::type_complexity)]
fn check_with(
    op: LayerNorm,
    inputs: &[Array],
    by: fn(&dyn crate::op::Op, &[Array], &dyn Fn(&[Array]) -> Vec<Array>),
) {
    by(&op, inputs, &|x| vec![compute_reference(&op, x)]);
}

const OPS: [LayerNorm; 4] = {
    const fn make_op(weight: bool, bias: bool) -> LayerNorm {
        LayerNorm { eps: 1e-5, weight, bias }
    }
    [make_op(true, true), make_op(true, false), make_op(false, true), make_op(false, false)]
};

fn draw_inputs(op: LayerNorm, x: Array) -> Vec<Array> {
    let n = x.shape[x.shape.len() - 1];
    let mut inputs = vec![x];
    inputs.extend(op.weight.then(|| Array::random("w", &[n]).map(|v| v + 1.5)));
    inputs.extend(op.bias.then(|| Array::random("b", &[n])));
    inputs
}

#[test]
fn equals_the_reference() {
    for op in OPS {
        // For rows of one or two elements the gradient of x is 0 except for the effect of ε.
        for n in [5, 63, 64, 65, 257] {
            for rows in [vec![1], vec![2, 65]] {
                let x = Array::random("x", &[&rows[..], &[n]].concat()).map(|v| v + 0.3);
                check_with(op, &draw_inputs(op, x), check);
            }
        }
    }
}

#[test]
fn rows_of_one_element_equal_the_reference() {
    check_with(OPS[0], &draw_inputs(OPS[0], Array::random("x", &[3, 1])), check_non_finite);
}

#[test]
fn frozen_half_weights_equal_the_reference() {
    for dtype in [DType::F16, DType::BF16] {
        let mut x = draw_inputs(OPS[0], Array::random("x", &[5, 65]));
        x[1] = x[1].stored(dtype);
        x[2] = x[2].stored(dtype);
        check_with(OPS[0], &x, check);
    }
}

/// The variance is computed about the mean, not as a difference of large numbers: that would lose 30² / (1/3) f32
/// roundings, 1.6e-4, compared with 2e-6 for the rounding of the mean.
#[test]
fn rows_with_a_large_mean_stay_accurate() {
    let x = Array::random("x", &[3, 257]).map(|v| (v * 64.0).round() / 64.0 + 30.0);
    check_with(OPS[3], &[x], check_non_finite);
}

#[test]
fn non_finite_values_stay_in_their_rows() {
    let x = Array::new(&[3, 3], vec![f64::NAN, 1.0, 2.0, 1.0, 2.0, 3.0, f64::INFINITY, 1.0, -1.0]);
    for op in OPS {
        check_with(op, &draw_inputs(op, x.clone()), check_non_finite);
    }
}
