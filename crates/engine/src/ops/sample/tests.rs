use std::rc::Rc;

use lowrank_cpu::random::Stream;

use super::{Sample, plain::plain, plain::probabilities, record};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::ops::checks::{Array, contexts, read};

const PLAIN: Sample = Sample { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

fn words(count: usize, seed: u64) -> Vec<u64> {
    let mut stream = Stream::new(seed);
    (0..count).map(|_| stream.word()).collect()
}

/// Returns logits like a model's: spread over about 20 nats, a few far above.
fn logits(name: &str, rows: usize, n: usize) -> Array {
    let (x, y) = (Array::random(name, &[rows, n]), Array::random(&format!("{name}y"), &[rows, n]));
    let data = x.data.iter().zip(&y.data).map(|(x, y)| ((x * x * x * 12.0 + y) as f32) as f64).collect();
    Array::new(&[rows, n], data)
}

fn marks(name: &str, rows: usize, n: usize) -> Array {
    Array { dtype: DType::I32, ..Array::random(name, &[rows, n]).map(|v| (v > 0.4) as i32 as f64) }
}

fn drawn(sample: &Sample, logits: &Value, seen: Option<&Value>, random: &[u64]) -> (Vec<f64>, Vec<f64>) {
    let rows: Vec<(Sample, u64)> = random.iter().map(|word| (*sample, *word)).collect();
    let [token, bad] = record(logits, seen, &rows).unwrap();
    (read(&token).data, read(&bad).data)
}

/// Every device samples the token of the plain form.
fn holds(sample: &Sample, logits: &Array, seen: Option<&Array>, random: &[u64], devices: &[Rc<Context>]) {
    let [rows, n] = logits.shape[..] else { unreachable!() };
    let mut first: Option<Vec<f64>> = None;
    for cx in devices {
        let seen_there = seen.map(|s| s.upload(cx));
        let (tokens, bad) = drawn(sample, &logits.upload(cx), seen_there.as_ref(), random);
        let what = format!("{sample:?} [{rows}, {n}] on {}", cx.profile.label);
        assert!(bad.iter().all(|b| *b == -1.0), "{what}: {bad:?}");
        let first = first.get_or_insert_with(|| tokens.clone());
        assert_eq!(&tokens, first, "{what}: as on the first device");
        for r in 0..rows {
            let row = &logits.data[r * n..][..n];
            let before: Option<Vec<bool>> =
                seen.map(|s| s.data[r * n..][..n].iter().map(|v| *v == 1.0).collect());
            let (expected, margin) = plain(sample, row, before.as_deref(), random[r]);
            // Weights are integers: a word within their rounding of another token may select that one.
            if margin > 1e-6 {
                assert_eq!(tokens[r], expected as f64, "{what}: row {r}, word {:#x}", random[r]);
            } else {
                let p = probabilities(sample, row, before.as_deref());
                assert!(p[tokens[r] as usize] > 0.0, "{what}: row {r} drew what is not kept");
            }
        }
        if let (Some(seen), Some(there)) = (seen, seen_there) {
            let mut expected = seen.data.clone();
            (0..rows).for_each(|r| expected[r * n + tokens[r] as usize] = 1.0);
            assert_eq!(read(&there).data, expected, "{what}: what was seen");
        }
    }
}

fn cuts() -> Vec<Sample> {
    let mut all = vec![
        PLAIN,
        Sample { temperature: 0.0, ..PLAIN },
        Sample { temperature: 1e-6, ..PLAIN },
        Sample { temperature: 30.0, ..PLAIN },
        Sample { top_k: 1, ..PLAIN },
        Sample { top_p: 1e-9, ..PLAIN },
        Sample { min_p: 1.0, ..PLAIN },
    ];
    for temperature in [0.7, 1.6] {
        for (top_k, top_p, min_p) in
            [(5, 1.0, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.05), (40, 0.95, 0.0), (40, 0.8, 0.02), (7, 0.5, 0.3)]
        {
            all.push(Sample { temperature, top_k, top_p, min_p, ..PLAIN });
        }
    }
    all
}

every_variant! {
    kernels::sample::KERNELS;
    fn equals_the_plain_form() {
        let devices = contexts();
        for (i, sample) in cuts().iter().enumerate() {
            for (rows, n) in [(1, 1), (17, 2), (5, 63), (9, 65), (3, 257), (8, 900)] {
                let name = format!("{i} {n}");
                let random = words(rows, (i * 1000 + n) as u64);
                holds(sample, &logits(&name, rows, n), None, &random, &devices);
                let penalised = Sample { repetition_penalty: 1.3, ..*sample };
                holds(&penalised, &logits(&name, rows, n), Some(&marks(&name, rows, n)), &random, &devices);
            }
        }
    }
}

/// A row's token depends only on its logits, options and word, not on other rows of the launch.
#[test]
fn rows_of_one_launch_have_options_of_their_own() {
    let mut rows: Vec<(Sample, u64)> = cuts().into_iter().zip(words(cuts().len(), 77)).collect();
    let penalised =
        |(sample, word): &(Sample, u64)| (Sample { repetition_penalty: 1.4, ..*sample }, word ^ 5);
    rows.extend(rows.iter().map(penalised).collect::<Vec<_>>());
    let n = 300;
    let (logits, seen) = (logits("mixed", rows.len(), n), marks("mixed", rows.len(), n));
    for cx in contexts() {
        let of = |x: &Array, r: usize| Array {
            dtype: x.dtype,
            ..Array::new(&[1, n], x.data[r * n..][..n].to_vec())
        };
        let there = seen.upload(&cx);
        let [token, bad] = record(&logits.upload(&cx), Some(&there), &rows).unwrap();
        assert!(read(&bad).data.iter().all(|bad| *bad == -1.0));
        let (tokens, there) = (read(&token).data, read(&there).data);
        for (r, row) in rows.iter().enumerate() {
            let own = (row.0.repetition_penalty != 1.0).then(|| of(&seen, r).upload(&cx));
            let [alone, _] = record(&of(&logits, r).upload(&cx), own.as_ref(), &[*row]).unwrap();
            assert_eq!(read(&alone).data[0], tokens[r], "{row:?} on {}", cx.profile.label);
            assert_eq!(there[r * n + tokens[r] as usize], 1.0, "{row:?} on {}", cx.profile.label);
        }
    }
}

#[test]
fn a_vocabulary_of_today() {
    const V: usize = 151_936;
    let devices: Vec<_> =
        contexts().into_iter().filter(|cx| cx.profile.binding_limit > 4 * V as u64).collect();
    let logits = logits("wide", 4, V);
    for sample in [
        PLAIN,
        Sample { temperature: 0.0, ..PLAIN },
        Sample { temperature: 5.0, top_p: 0.95, ..PLAIN },
        Sample { top_k: 50, top_p: 0.9, min_p: 0.01, ..PLAIN },
        Sample { temperature: 3.0, top_k: 100_000, ..PLAIN },
        Sample { temperature: 0.8, repetition_penalty: 1.1, ..PLAIN },
    ] {
        let mut random = words(2, 9);
        random.extend([0, u64::MAX]);
        let seen = (sample.repetition_penalty != 1.0).then(|| marks("wide", 4, V));
        holds(&sample, &logits, seen.as_ref(), &random, &devices);
    }
}

#[test]
fn what_is_as_likely_as_the_last_token_kept_is_kept() {
    let devices = contexts();
    let ties = Array::new(&[1, 6], vec![1.0, 3.0, 2.0, 2.0, 3.0, 2.0]);
    for sample in [Sample { top_k: 3, ..PLAIN }, Sample { top_p: 0.8, ..PLAIN }] {
        for word in words(20, 3) {
            holds(&sample, &ties, None, &[word], &devices);
        }
    }
    let p = probabilities(&Sample { top_k: 3, ..PLAIN }, &ties.data, None);
    assert_eq!(p.iter().filter(|p| **p > 0.0).count(), 5);
}

#[test]
fn infinities_and_what_is_no_number() {
    const INF: f64 = f64::INFINITY;
    for cx in contexts() {
        let rows = Array::new(
            &[4, 3],
            vec![1.0, f64::NAN, f64::NAN, -INF, -INF, -INF, 0.0, INF, 1.0, -INF, 2.0, -INF],
        );
        for sample in cuts() {
            let (tokens, bad) = drawn(&sample, &rows.upload(&cx), None, &words(4, 1));
            assert_eq!(bad, [1.0, 3.0, -1.0, -1.0], "{sample:?} on {}", cx.profile.label);
            assert_eq!(tokens, [1.0, 0.0, 1.0, 1.0], "{sample:?} on {}", cx.profile.label);
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let cx = &contexts()[0];
    let logits = Array::random("x", &[2, 5]).upload(cx);
    let code = |sample: Sample, logits: &Value, seen: Option<&Value>, rows: usize| {
        let rows: Vec<(Sample, u64)> = words(rows, 1).into_iter().map(|word| (sample, word)).collect();
        record(logits, seen, &rows).err().map(|e| e.code)
    };
    assert_eq!(code(PLAIN, &logits, None, 2), None);
    assert_eq!(code(PLAIN, &logits, None, 1), Some(Code::ShapeMismatch));
    assert_eq!(code(PLAIN, &logits.reshape([10]), None, 2), Some(Code::ShapeMismatch));
    assert_eq!(code(PLAIN, &Array::indices("x", &[2, 5], 3).upload(cx), None, 2), Some(Code::Dtype));
    let seen = Array::indices("x", &[2, 4], 2).upload(cx);
    assert_eq!(code(PLAIN, &logits, Some(&seen), 2), Some(Code::ShapeMismatch));
    for sample in [
        Sample { temperature: -1.0, ..PLAIN },
        Sample { temperature: f64::NAN, ..PLAIN },
        Sample { top_p: 0.0, ..PLAIN },
        Sample { min_p: 1.1, ..PLAIN },
        Sample { repetition_penalty: 0.0, ..PLAIN },
        Sample { repetition_penalty: 2.0, ..PLAIN },
    ] {
        assert_eq!(code(sample, &logits, None, 2), Some(Code::Option), "{sample:?}");
    }
}
