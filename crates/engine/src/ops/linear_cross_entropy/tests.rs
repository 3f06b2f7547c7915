use lowrank_cpu::quant::BlockType;

use super::{LinearCrossEntropy, WantedGradients, reference::compute_reference};
use crate::dtype::DType;
use crate::error::Code;
use crate::kernels::gemm::Precision;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{
    Array, TOLERANCE, check, compare, compare_quantised, contexts, read, upload_quantised,
};
use crate::ops::cross_entropy::Reduction;
use crate::profile::Kind;

const HIDDEN: WantedGradients = WantedGradients { hidden: true, weight: false, bias: false };
const ALL: WantedGradients = WantedGradients { hidden: true, weight: true, bias: true };
const OP: LinearCrossEntropy = LinearCrossEntropy {
    ignore_index: -100,
    label_smoothing: 0.0,
    reduction: Reduction::Mean,
    wanted: HIDDEN,
    precision: Precision::Exact,
};

fn draw_inputs(rows: &[usize], c: usize, v: usize, dtype: DType) -> [Array; 3] {
    let targets = Array::indices("targets", rows, v);
    [Array::random("hidden", &[rows, &[c]].concat()), Array::random("weight", &[v, c]).stored(dtype), targets]
}

fn ignore_rows(targets: &mut Array, which: impl Fn(usize) -> bool) {
    targets.data.iter_mut().enumerate().filter(|(i, _)| which(*i)).for_each(|(_, t)| *t = -100.0);
}

/// Like `check`, for an operation with hidden outputs that are not compared.
fn check_loss(op: LinearCrossEntropy, inputs: &[Array]) {
    check(&op, inputs, &|x| vec![compute_reference(op, x)]);
}

#[test]
fn equals_the_reference() {
    use Reduction::{Mean, None, Sum};
    for (reduction, label_smoothing) in [(Mean, 0.0), (Sum, 0.1), (None, 0.1)] {
        let op = LinearCrossEntropy { reduction, label_smoothing, ..OP };
        for v in [1, 63, 64, 65, 257] {
            for (rows, dtype) in [(vec![1], DType::F16), (vec![2, 65], DType::BF16)] {
                check_loss(op, &draw_inputs(&rows, 17, v, dtype));
            }
        }
    }
}

/// With a bias, frozen or not, and a trained weight.
#[test]
fn trained_heads_equal_the_reference() {
    for (reduction, label_smoothing) in [(Reduction::Mean, 0.1), (Reduction::Sum, 0.0)] {
        for v in [1, 63, 65, 257] {
            for rows in [vec![1], vec![2, 65]] {
                let [hidden, weight, mut targets] = draw_inputs(&rows, 17, v, DType::F32);
                ignore_rows(&mut targets, |i| i % 5 == 1);
                let bias = Array::random("bias", &[v]);
                let op = LinearCrossEntropy { reduction, label_smoothing, ..OP };
                let whole = LinearCrossEntropy { wanted: ALL, ..op };
                check_loss(whole, &[hidden.clone(), weight.clone(), targets.clone(), bias.clone()]);
                let unbiased = LinearCrossEntropy { wanted: WantedGradients { bias: false, ..ALL }, ..op };
                check_loss(unbiased, &[hidden.clone(), weight.clone(), targets.clone()]);
                // Stored as f16, so that the weight needs no gradient.
                let biased = LinearCrossEntropy { wanted: WantedGradients { weight: false, ..ALL }, ..op };
                check_loss(biased, &[hidden, weight.stored(DType::F16), targets, bias]);
            }
        }
    }
}

#[test]
fn ignored_rows_are_excluded() {
    use Reduction::{Mean, None, Sum};
    // Runs of rows, rows by index (more runs than are copied), one row, none.
    for which in [|i: usize| i < 40, |i| i % 3 == 1, |i| i % 2 == 0, |i| i != 64, |_| true] {
        for reduction in [Mean, Sum, None] {
            if reduction == Mean && (0..65).all(which) {
                continue;
            }
            let mut x = draw_inputs(&[65], 17, 33, DType::F16);
            ignore_rows(&mut x[2], which);
            check_loss(LinearCrossEntropy { reduction, ..OP }, &x);
            if reduction != None {
                x[1] = x[1].stored(DType::F32);
                let wanted = WantedGradients { bias: false, ..ALL };
                check_loss(LinearCrossEntropy { reduction, wanted, ..OP }, &x);
            }
        }
    }
}

#[test]
fn the_mean_over_no_rows_is_nan() {
    let mut x = draw_inputs(&[65], 17, 33, DType::F16);
    ignore_rows(&mut x[2], |_| true);
    for cx in contexts() {
        let [h, w, t] = [0, 1, 2].map(|i| x[i].upload(&cx));
        assert!(read(&run(&cx, &OP, &[&h, &w, &t]).unwrap()[0]).data[0].is_nan());
    }
}

/// More rows than a chunk has; nothing may be read or written across chunks. The fused and the composed operations compute
/// the same sums, so that they differ only by f32 rounding.
#[test]
fn chunks_of_rows_equal_the_reference() {
    let [hidden, weight, mut targets] = draw_inputs(&[1500], 8, 65, DType::F32);
    let bias = Array::random("bias", &[65]);
    ignore_rows(&mut targets, |i| i % 700 < 100);
    let op = LinearCrossEntropy { wanted: ALL, ..OP };
    let expected = compute_reference(op, &[hidden.clone(), weight.clone(), targets.clone(), bias.clone()]);
    let [d_hidden, d_weight, d_bias] = compute_reference_gradients(&hidden, &weight, &targets, &bias);
    for cx in contexts() {
        let [h, w, t, b] = [&hidden, &weight, &targets, &bias].map(|x| x.upload(&cx));
        let label = &cx.profile.label;
        let y = run(&cx, &op, &[&h, &w, &t, &b]).unwrap();
        compare(label, &read(&y[0]), &expected, 1e-6);
        for (i, d) in [&d_hidden, &d_weight, &d_bias].into_iter().enumerate() {
            compare(&format!("gradient {i} on {label}"), &read(&y[2 + i]), d, TOLERANCE);
        }
        let forward_only = LinearCrossEntropy { wanted: WantedGradients::default(), ..op };
        let z = run(&cx, &forward_only, &[&h, &w, &t, &b]).unwrap();
        compare(&format!("forward on {label}"), &read(&z[0]), &expected, 1e-6);
        // Without the host's copy every row is processed, with the same result.
        t.storage.record_write();
        let y2 = run(&cx, &op, &[&h, &w, &t, &b]).unwrap();
        compare(&format!("unknown on {label}"), &read(&y2[0]), &expected, 1e-6);
        compare("d_hidden", &read(&y2[2]), &read(&y[2]), 1e-6);
        // Losses by row: 0 for rows without a label, whether the host knows the labels or not.
        let by_row = LinearCrossEntropy { reduction: Reduction::None, wanted: HIDDEN, ..op };
        let each =
            compute_reference(by_row, &[hidden.clone(), weight.clone(), targets.clone(), bias.clone()]);
        let unknown = run(&cx, &by_row, &[&h, &w, &t, &b]).unwrap();
        compare(&format!("by row, unknown, on {label}"), &read(&unknown[0]), &each, TOLERANCE);
        let known = run(&cx, &by_row, &[&h, &w, &targets.upload(&cx), &b]).unwrap();
        compare(&format!("by row on {label}"), &read(&known[0]), &each, TOLERANCE);
    }
}

/// Rows of a power of two of logits are padded, and the padding is not read.
#[test]
fn rows_of_a_power_of_two_equal_the_reference() {
    let bias = Array::random("bias", &[2048]);
    for rows in [1, 70] {
        let [hidden, weight, mut targets] = draw_inputs(&[rows], 17, 2048, DType::F32);
        ignore_rows(&mut targets, |i| i == 3);
        let op = LinearCrossEntropy { wanted: ALL, ..OP };
        let expected =
            compute_reference(op, &[hidden.clone(), weight.clone(), targets.clone(), bias.clone()]);
        let gradients = compute_reference_gradients(&hidden, &weight, &targets, &bias);
        for cx in contexts().iter().filter(|cx| cx.profile.binding_limit > 1 << 16) {
            let [h, w, t, b] = [&hidden, &weight, &targets, &bias].map(|x| x.upload(cx));
            // Known and unknown targets: rows that are left out, and rows of zeros.
            for known in [true, false] {
                if !known {
                    t.storage.record_write();
                }
                let y = run(cx, &op, &[&h, &w, &t, &b]).unwrap();
                let label = format!("{rows} rows on {}, known {known}", cx.profile.label);
                compare(&label, &read(&y[0]), &expected, TOLERANCE);
                for (i, d) in gradients.iter().enumerate() {
                    compare(&format!("gradient {i} of {label}"), &read(&y[2 + i]), d, TOLERANCE);
                }
            }
        }
    }
}

/// Returns the gradients of the losses' sum in f64, for hidden, W and b: with G = softmax − one-hot of the labelled
/// rows, G·W, Gᵀ·h and the sum of G's rows.
fn compute_reference_gradients(hidden: &Array, weight: &Array, targets: &Array, bias: &Array) -> [Array; 3] {
    let c = weight.shape[1];
    let [mut d_hidden, mut d_weight, mut d_bias] = [hidden, weight, bias].map(|x| x.map(|_| 0.0));
    for (row, (h, t)) in hidden.data.chunks(c).zip(&targets.data).enumerate().filter(|(_, (_, t))| **t >= 0.0)
    {
        let logits: Vec<f64> = weight
            .data
            .chunks(c)
            .zip(&bias.data)
            .map(|(w, b)| b + w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>())
            .collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
        for (j, x) in logits.iter().enumerate() {
            let g = (x - largest).exp() / sum - f64::from(j as f64 == *t);
            d_bias.data[j] += g;
            for (k, h) in h.iter().enumerate() {
                d_hidden.data[row * c + k] += g * weight.data[j * c + k];
                d_weight.data[j * c + k] += g * h;
            }
        }
    }
    [d_hidden, d_weight, d_bias]
}

#[test]
fn gradients_not_computed_by_forward_are_refused() {
    let cx = &contexts()[0];
    let x = draw_inputs(&[3], 4, 5, DType::F32).map(|x| x.upload(cx));
    let y = run(cx, &OP, &x.iter().collect::<Vec<_>>()).unwrap();
    let d = vec![Some(y[0].clone()), None, None];
    let pass = Backward::after(&OP, &x, &y, &[true, true, false], d);
    assert_eq!(OP.backward(cx, &pass).map(|_| ()).unwrap_err().code, Code::NoGradient);
    // A trained head does not support losses by row.
    let op = LinearCrossEntropy { reduction: Reduction::None, wanted: ALL, ..OP };
    let error = run(cx, &op, &x.iter().collect::<Vec<_>>()).map(|_| ()).unwrap_err();
    assert_eq!(error.code, Code::NoGradient);
}

#[test]
fn a_bias_of_wrong_length_is_refused() {
    let cx = &contexts()[0];
    let x = draw_inputs(&[3], 4, 5, DType::F32).map(|x| x.upload(cx));
    let bias = Array::random("bias", &[4]).upload(cx);
    let error = run(cx, &OP, &[&x[0], &x[1], &x[2], &bias]).map(|_| ()).unwrap_err();
    assert_eq!(error.code, Code::ShapeMismatch);
    assert!(error.message.contains("f32[4]") && error.message.contains("f32[5]"), "{error}");
}

#[test]
fn bf16_products_round_hidden_and_logit_gradients() {
    let rounding = LinearCrossEntropy { precision: Precision::Bf16, ..OP };
    let (hidden, targets) = (Array::random("hidden", &[65, 33]), Array::indices("targets", &[65], 257));
    let weight = Array::random("weight", &[257, 33]).stored(DType::BF16);
    let rounded = Array { dtype: DType::F32, ..hidden.stored(DType::BF16) };
    for cx in contexts() {
        let run_loss = |op: LinearCrossEntropy, hidden: &Array| {
            let v = [hidden, &weight, &targets].map(|x| x.upload(&cx));
            let out = run(&cx, &op, &v.iter().collect::<Vec<_>>()).unwrap();
            (read(&out[0]), read(&out[2]))
        };
        let (loss, d_hidden) = run_loss(rounding, &hidden);
        let on_cpu = cx.profile.kind == Kind::Cpu;
        let (expected, d_expected) = run_loss(OP, if on_cpu { &rounded } else { &hidden });
        let label = &cx.profile.label;
        compare(label, &loss, &expected, TOLERANCE);
        // Factors have a relative error of at most 2^-9, and a row's factors add up to less than 2.
        compare(label, &d_hidden, &d_expected, 1.0 / 256.0);
        assert_eq!(d_hidden.data != d_expected.data, on_cpu, "{label}");
    }
}

/// A head in blocks, such as a quantised embedding with tied weights.
#[test]
fn quantised_heads_equal_their_unpacked_weights() {
    let [hidden, _, targets] = draw_inputs(&[2, 9], 256, 13, DType::F32);
    for cx in contexts() {
        for kind in BlockType::EVERY {
            let (hidden, targets) = (hidden.upload(&cx), targets.upload(&cx));
            let run_loss = |weight| run(&cx, &OP, &[&hidden, weight, &targets]).unwrap();
            let [got, expected] = upload_quantised(&cx, kind, &[13, 256]).each_ref().map(run_loss);
            for i in [0, 2] {
                compare_quantised(&format!("{kind}, output {i}"), &cx, 18, &got[i], &expected[i]);
            }
        }
    }
}
