use lowrank_cpu::quant::BlockType;

use super::{Linear, reference::compute_reference};
use crate::context::{Spec, Value};
use crate::dtype::DType;
use crate::error::Code;
use crate::kernels::gemm::Precision;
use crate::op::{Backward, Op, run, run1};
use crate::ops::checks::{
    Array, TOLERANCE, check, check_non_finite, compare, compare_quantised, contexts, read, upload_quantised,
};
use crate::ops::unary::Unary;
use crate::profile::Kind;

fn draw_inputs(op: Linear, rows: &[usize], features: usize, out: usize, bias: bool) -> Vec<Array> {
    let shape = [rows, &[features]].concat();
    let weight = if op.fan_in_fan_out { [features, out] } else { [out, features] };
    let mut inputs = vec![Array::random("x", &shape), Array::random("weight", &weight)];
    inputs.extend(bias.then(|| Array::random("bias", &[out])));
    inputs
}

fn check_linear(op: Linear, inputs: &[Array]) {
    check(&op, inputs, &|x| vec![compute_reference(op.fan_in_fan_out, &x[0], &x[1], x.get(2))]);
}

#[test]
fn equals_the_reference() {
    for fan_in_fan_out in [false, true] {
        let op = Linear { fan_in_fan_out, ..Linear::default() };
        for bias in [false, true] {
            for n in [1, 63, 64, 65, 257] {
                check_linear(op, &draw_inputs(op, &[n], 5, 3, bias));
                check_linear(op, &draw_inputs(op, &[2, 3], n, 4, bias));
                check_linear(op, &draw_inputs(op, &[3], 7, n, bias));
            }
            check_linear(op, &draw_inputs(op, &[], 33, 65, bias));
            check_linear(op, &draw_inputs(op, &[2, 17], 65, 63, bias));
        }
    }
}

#[test]
fn frozen_half_weights_equal_the_reference() {
    for dtype in [DType::F16, DType::BF16] {
        for fan_in_fan_out in [false, true] {
            let op = Linear { fan_in_fan_out, ..Linear::default() };
            for rows in [1, 3, 65] {
                let mut inputs = draw_inputs(op, &[rows], 63, 65, true);
                inputs[1] = inputs[1].stored(dtype);
                check_linear(op, &inputs);
            }
        }
    }
}

#[test]
fn non_finite_values_reach_their_rows_and_columns() {
    let op = Linear::default();
    for v in [f64::NAN, f64::INFINITY] {
        for operand in 0..3 {
            let mut inputs = draw_inputs(op, &[5], 6, 7, true);
            inputs[operand].data[4] = v;
            check_non_finite(&op, &inputs, &|x| vec![compute_reference(false, &x[0], &x[1], x.get(2))]);
        }
    }
}

#[test]
fn mismatched_shapes_are_refused() {
    let error = |inputs: &[&Spec]| Linear::default().outputs(inputs).unwrap_err().message;
    assert_eq!(
        error(&[&Spec::f32([2, 3]), &Spec::f32([4, 5])]),
        "linear: an input of shape [2, 3] does not fit a weight of shape [4, 5]: the input has 3 features, the weight takes 5"
    );
    let message = error(&[&Spec::f32([2, 5]), &Spec::f32([4, 5]), &Spec::f32([5])]);
    assert_eq!(message, "linear: the bias is f32[5], the weight f32[4, 5] requires f32[4]");
}

#[test]
fn bf16_products_round_the_input_on_the_cpu() {
    for fan_in_fan_out in [false, true] {
        let exact = Linear { fan_in_fan_out, ..Linear::default() };
        let rounding = Linear { precision: Precision::Bf16, ..exact };
        let mut inputs = draw_inputs(exact, &[65], 63, 257, true);
        inputs[1] = inputs[1].stored(DType::BF16);
        let d = Array::random("d", &[65, 257]);
        let rounded = |x: &Array| Array { dtype: DType::F32, ..x.stored(DType::BF16) };
        for cx in contexts() {
            // Returns y and the gradient of x.
            let run_linear = |op: Linear, x: &Array, d: &Array| {
                let v: Vec<Value> = [x, &inputs[1], &inputs[2]].iter().map(|x| x.upload(&cx)).collect();
                let y = run(&cx, &op, &v.iter().collect::<Vec<_>>()).unwrap();
                let d = vec![Some(d.upload(&cx))];
                let pass = Backward::after(&op, &v, &y, &[true, false, false], d);
                let d_x = op.backward(&cx, &pass).unwrap().swap_remove(0).unwrap();
                [read(&y[0]), read(&d_x)]
            };
            let (got, unrounded) = (run_linear(rounding, &inputs[0], &d), run_linear(exact, &inputs[0], &d));
            let on_cpu = cx.profile.kind == Kind::Cpu;
            let expected = if on_cpu {
                run_linear(exact, &rounded(&inputs[0]), &rounded(&d))
            } else {
                unrounded.clone()
            };
            for ((got, expected), unrounded) in got.iter().zip(&expected).zip(&unrounded) {
                compare(&cx.profile.label, got, expected, TOLERANCE);
                assert_eq!(got.data != unrounded.data, on_cpu, "{}", cx.profile.label);
            }
        }
    }
}

/// In f16, y and the gradient of x (with rows as small as a large batch's) have factors rounded by 2⁻¹¹; the gradient
/// of W has exact ones.
#[test]
fn f16_products_round_both_factors_on_gpus_with_f16() {
    for fan_in_fan_out in [false, true] {
        for weight in [DType::F32, DType::F16, DType::BF16] {
            let exact = Linear { fan_in_fan_out, ..Linear::default() };
            let mut inputs = draw_inputs(exact, &[67], 70, 85, true);
            inputs[1] = inputs[1].stored(weight);
            let d = Array::from_fn(&[67, 85], |i| 1e-9 * 10f64.powi(i[0] as i32 % 3 - 1));
            let signs = Array::random("d", &[67, 85]);
            let d = Array::new(&d.shape, d.data.iter().zip(&signs.data).map(|(d, s)| d * s).collect());
            // A separate test covers the split into windows.
            for cx in contexts().into_iter().take(2) {
                let run_linear = |precision: Precision| {
                    let op = Linear { precision, ..exact };
                    let v: Vec<Value> = inputs.iter().map(|x| x.upload(&cx)).collect();
                    let y = run(&cx, &op, &v.iter().collect::<Vec<_>>()).unwrap();
                    let needs = [true, weight == DType::F32, true];
                    let pass = Backward::after(&op, &v, &y, &needs, vec![Some(d.upload(&cx))]);
                    let gradients = op.backward(&cx, &pass).unwrap();
                    let all: Vec<Array> = y.iter().chain(gradients.iter().flatten()).map(read).collect();
                    all
                };
                let (got, unrounded) = (run_linear(Precision::F16), run_linear(Precision::Exact));
                let has_f16 = cx.profile.f16_arithmetic;
                for (i, (got, unrounded)) in got.iter().zip(&unrounded).enumerate() {
                    let what = format!("{i} by {weight} on {}", cx.profile.label);
                    assert_eq!(got.data != unrounded.data, has_f16 && i < 2, "{what}");
                    let columns = *got.shape.last().unwrap();
                    for (got, unrounded) in got.data.chunks(columns).zip(unrounded.data.chunks(columns)) {
                        let largest = unrounded.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                        let error =
                            got.iter().zip(unrounded).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
                        assert!(
                            error <= 2f64.powi(-9) * largest,
                            "{what}: an error of {error} for values up to {largest}"
                        );
                    }
                }
            }
        }
    }
}

/// A weight in blocks gives the result of the same weight in f32, forward and backward, in every precision: it does not
/// count as a bf16 weight.
#[test]
fn quantised_weights_equal_their_unpacked_weights() {
    for cx in contexts() {
        for kind in BlockType::EVERY {
            for fan_in_fan_out in [false, true] {
                for (precision, rows) in [
                    (Precision::Exact, 1),
                    (Precision::Exact, 3),
                    (Precision::Exact, 67),
                    (Precision::Bf16, 9),
                ] {
                    let op = Linear { fan_in_fan_out, precision };
                    // Blocks run along the second dimension; nf4's must fit a binding of 4 KiB.
                    let shape = if kind.is_divisible() { [37, 512] } else { [29, 256] };
                    let [features, out] = if fan_in_fan_out { shape } else { [shape[1], shape[0]] };
                    let [stored, wide] = upload_quantised(&cx, kind, &shape);
                    let [x, bias, d] =
                        [("x", vec![rows, features]), ("bias", vec![out]), ("d", vec![rows, out])]
                            .map(|(name, shape)| Array::random(name, &shape).upload(&cx));
                    let run_linear = |op: Linear, weight: &Value| {
                        let inputs = [x.clone(), weight.clone(), bias.clone()];
                        let y = run(&cx, &op, &inputs.each_ref()).unwrap();
                        let needs = [true, false, false];
                        let pass = Backward::after(&op, &inputs, &y, &needs, vec![Some(d.clone())]);
                        [y[0].clone(), op.backward(&cx, &pass).unwrap().swap_remove(0).unwrap()]
                    };
                    let expected = run_linear(Linear { precision: Precision::Exact, ..op }, &wide);
                    for (got, expected) in run_linear(op, &stored).iter().zip(&expected) {
                        compare_quantised(&format!("{kind} {op:?} {rows}"), &cx, rows, got, expected);
                    }
                }
            }
        }
    }
}

#[test]
fn other_operations_refuse_quantised_weights() {
    let cx = &contexts()[0];
    let [stored, _] = upload_quantised(cx, BlockType::Q8_0, &[2, 64]);
    let error = run1(cx, &Unary(crate::kernels::elementwise::Function::Exp), &[&stored]).unwrap_err();
    assert_eq!(error.code, Code::Dtype);
    assert!(error.message.contains("takes no q8_0[2, 64], a quantised weight"), "{}", error.message);
    let error = cx.empty([2, 33], DType::Block(BlockType::Q8_0)).unwrap_err();
    assert!(error.message.contains("rows of 33, which are no whole blocks of q8_0"), "{}", error.message);
}
