use super::{HeadLoss, plain::plain};
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Code;
use crate::kernels::gemm::Precision;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, TOLERANCE, check, compare, contexts, read};

const OP: HeadLoss = HeadLoss {
    ignore_index: -100,
    label_smoothing: 0.0,
    mean: true,
    with_gradient: true,
    precision: Precision::Exact,
};

fn inputs(rows: &[usize], c: usize, v: usize, dtype: DType) -> [Array; 3] {
    let targets = Array::indices("targets", rows, v);
    [Array::random("hidden", &[rows, &[c]].concat()), Array::random("weight", &[v, c]).stored(dtype), targets]
}

fn ignoring(targets: &mut Array, which: impl Fn(usize) -> bool) {
    targets.data.iter_mut().enumerate().filter(|(i, _)| which(*i)).for_each(|(_, t)| *t = -100.0);
}

#[test]
fn equals_the_plain_form() {
    for (mean, label_smoothing) in [(true, 0.0), (false, 0.1)] {
        let op = HeadLoss { mean, label_smoothing, ..OP };
        for v in [1, 63, 64, 65, 257] {
            for (rows, dtype) in [(vec![1], DType::F16), (vec![2, 65], DType::BF16)] {
                check(&op, &inputs(&rows, 17, v, dtype), &|x| vec![plain(op, &x[0], &x[1], &x[2])]);
            }
        }
    }
}

#[test]
fn ignored_rows_are_left_out() {
    for which in [|i: usize| i < 40, |i| i % 3 == 1, |i| i == 0 || i == 64, |_| true] {
        let mut x = inputs(&[65], 17, 33, DType::F16);
        ignoring(&mut x[2], which);
        let op = HeadLoss { mean: !(0..65).all(which), ..OP };
        check(&op, &x, &|x| vec![plain(op, &x[0], &x[1], &x[2])]);
    }
}

/// More rows than a chunk takes, where nothing may be read or written across the cuts; the fused
/// and the composed form hold the same sums, so that only roundings of f32 lie between them.
#[test]
fn chunks_give_what_the_whole_gives() {
    let [hidden, weight, mut targets] = inputs(&[1500], 8, 65, DType::F32);
    ignoring(&mut targets, |i| i % 700 < 100);
    let expected = plain(OP, &hidden, &weight, &targets);
    for cx in contexts() {
        let [h, w, t] = [&hidden, &weight, &targets].map(|x| x.upload(&cx));
        let y = run(&cx, &OP, &[&h, &w, &t]).unwrap();
        compare(&format!("on {}", cx.profile.label), &read(&y[0]), &expected, 1e-6);
        let forward_only = HeadLoss { with_gradient: false, ..OP };
        let z = run(&cx, &forward_only, &[&h, &w, &t]).unwrap();
        compare(&format!("forward on {}", cx.profile.label), &read(&z[0]), &expected, 1e-6);
        // Without the host's copy every row is gone through, with the same result.
        t.storage.written();
        let y2 = run(&cx, &OP, &[&h, &w, &t]).unwrap();
        compare(&format!("unknown on {}", cx.profile.label), &read(&y2[0]), &expected, 1e-6);
        compare("d_hidden", &read(&y2[2]), &read(&y[2]), 1e-6);
    }
}

/// Rows of a whole power of two of logits are kept further apart, and what lies between is nobody's.
#[test]
fn rows_a_power_of_two_long() {
    for rows in [1, 70] {
        let [hidden, weight, mut targets] = inputs(&[rows], 17, 2048, DType::F16);
        ignoring(&mut targets, |i| i == 3);
        let expected = plain(OP, &hidden, &weight, &targets);
        let mut d_expected: Option<Array> = None;
        for cx in contexts().iter().filter(|cx| cx.profile.binding_limit > 1 << 16) {
            let [h, w, t] = [&hidden, &weight, &targets].map(|x| x.upload(cx));
            // Known and unknown targets: rows left out, and rows of zeros.
            for known in [true, false] {
                if !known {
                    t.storage.written();
                }
                let y = run(cx, &OP, &[&h, &w, &t]).unwrap();
                let label = format!("{rows} rows on {}, known {known}", cx.profile.label);
                compare(&label, &read(&y[0]), &expected, TOLERANCE);
                let d_hidden = read(&y[2]);
                let d = d_expected.get_or_insert_with(|| plain_gradient(&hidden, &weight, &targets));
                compare(&label, &d_hidden, d, TOLERANCE);
            }
        }
    }
}

/// The gradient of the sum of the losses in f64: (softmax − one-hot) · W, of the rows that count.
fn plain_gradient(hidden: &Array, weight: &Array, targets: &Array) -> Array {
    let c = weight.shape[1];
    let mut d = vec![0.0; hidden.data.len()];
    for ((h, t), d) in hidden.data.chunks(c).zip(&targets.data).zip(d.chunks_mut(c)) {
        if *t < 0.0 {
            continue;
        }
        let logits: Vec<f64> =
            weight.data.chunks(c).map(|w| w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>()).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - most).exp()).sum();
        for (j, (x, w)) in logits.iter().zip(weight.data.chunks(c)).enumerate() {
            let p = (x - most).exp() / sum - f64::from(j as f64 == *t);
            d.iter_mut().zip(w).for_each(|(d, w)| *d += p * w);
        }
    }
    Array { data: d, ..hidden.clone() }
}

#[test]
fn a_trained_head_is_refused() {
    let cx = &contexts()[0];
    let x = inputs(&[3], 4, 5, DType::F32).map(|x| x.upload(cx));
    let y = run(cx, &OP, &x.iter().collect::<Vec<_>>()).unwrap();
    let d = vec![Some(y[0].clone()), None, None];
    let error =
        OP.backward(cx, &Backward::after(&OP, &x, &y, &[true, true, false], d)).map(|_| ()).unwrap_err();
    assert_eq!(error.code, Code::NoGradient);
}

#[test]
fn bf16_products_round_hidden_and_the_gradient_of_the_logits() {
    let rounding = HeadLoss { precision: Precision::Bf16, ..OP };
    let (hidden, targets) = (Array::random("hidden", &[65, 33]), Array::indices("targets", &[65], 257));
    let weight = Array::random("weight", &[257, 33]).stored(DType::BF16);
    let rounded = Array { dtype: DType::F32, ..hidden.stored(DType::BF16) };
    for cx in contexts() {
        let of = |op: HeadLoss, hidden: &Array| {
            let v = [hidden, &weight, &targets].map(|x| x.upload(&cx));
            let out = run(&cx, &op, &v.iter().collect::<Vec<_>>()).unwrap();
            (read(&out[0]), read(&out[2]))
        };
        let (loss, d_hidden) = of(rounding, &hidden);
        let on_cpu = cx.profile.kind == Kind::Cpu;
        let (expected, d_expected) = of(OP, if on_cpu { &rounded } else { &hidden });
        let label = &cx.profile.label;
        compare(label, &loss, &expected, TOLERANCE);
        // Factors are off by 2^-9 of themselves at most, and those of a row add up to less than 2.
        compare(label, &d_hidden, &d_expected, 1.0 / 256.0);
        assert_eq!(d_hidden.data != d_expected.data, on_cpu, "{label}");
    }
}
