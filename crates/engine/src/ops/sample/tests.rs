use std::rc::Rc;

use lowrank_cpu::random::Stream;

use super::{Sample, record, reference::compute_probabilities, reference::compute_reference};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::ops::checks::{Array, contexts, read};

const DEFAULT: Sample =
    Sample { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

fn draw_words(count: usize, seed: u64) -> Vec<u64> {
    let mut stream = Stream::new(seed);
    (0..count).map(|_| stream.word()).collect()
}

/// Returns logits like a model's: spread over about 20 nats, a few far above.
fn draw_logits(name: &str, rows: usize, n: usize) -> Array {
    let (x, y) = (Array::random(name, &[rows, n]), Array::random(&format!("{name}y"), &[rows, n]));
    let data = x.data.iter().zip(&y.data).map(|(x, y)| ((x * x * x * 12.0 + y) as f32) as f64).collect();
    Array::new(&[rows, n], data)
}

fn draw_marks(name: &str, rows: usize, n: usize) -> Array {
    Array { dtype: DType::I32, ..Array::random(name, &[rows, n]).map(|v| (v > 0.4) as i32 as f64) }
}

fn draw_tokens(
    sample: &Sample,
    logits: &Value,
    seen: Option<&Value>,
    random: &[u64],
) -> (Vec<f64>, Vec<f64>) {
    let rows: Vec<(Sample, u64)> = random.iter().map(|word| (*sample, *word)).collect();
    let [token, bad] = record(logits, seen, &rows).unwrap();
    (read(&token).data, read(&bad).data)
}

/// Every device samples the token of the reference.
fn check_sample(
    sample: &Sample,
    logits: &Array,
    seen: Option<&Array>,
    random: &[u64],
    devices: &[Rc<Context>],
) {
    let [rows, n] = logits.shape[..] else { unreachable!() };
    let mut first: Option<Vec<f64>> = None;
    for cx in devices {
        let seen_there = seen.map(|s| s.upload(cx));
        let (tokens, bad) = draw_tokens(sample, &logits.upload(cx), seen_there.as_ref(), random);
        let what = format!("{sample:?} [{rows}, {n}] on {}", cx.profile.label);
        assert!(bad.iter().all(|b| *b == -1.0), "{what}: {bad:?}");
        let first = first.get_or_insert_with(|| tokens.clone());
        assert_eq!(&tokens, first, "{what}: differs from the first device");
        for r in 0..rows {
            let row = &logits.data[r * n..][..n];
            let before: Option<Vec<bool>> =
                seen.map(|s| s.data[r * n..][..n].iter().map(|v| *v == 1.0).collect());
            let (expected, margin) = compute_reference(sample, row, before.as_deref(), random[r]);
            // Weights are integers: a word within their rounding of another token may select that one.
            if margin > 1e-6 {
                assert_eq!(tokens[r], expected as f64, "{what}: row {r}, word {:#x}", random[r]);
            } else {
                let p = compute_probabilities(sample, row, before.as_deref());
                assert!(p[tokens[r] as usize] > 0.0, "{what}: row {r} drew a token that is not kept");
            }
        }
        if let (Some(seen), Some(there)) = (seen, seen_there) {
            let mut expected = seen.data.clone();
            (0..rows).for_each(|r| expected[r * n + tokens[r] as usize] = 1.0);
            assert_eq!(read(&there).data, expected, "{what}: seen tokens");
        }
    }
}

fn list_options() -> Vec<Sample> {
    let mut all = vec![
        DEFAULT,
        Sample { temperature: 0.0, ..DEFAULT },
        Sample { temperature: 1e-6, ..DEFAULT },
        Sample { temperature: 30.0, ..DEFAULT },
        Sample { top_k: 1, ..DEFAULT },
        Sample { top_p: 1e-9, ..DEFAULT },
        Sample { min_p: 1.0, ..DEFAULT },
    ];
    for temperature in [0.7, 1.6] {
        for (top_k, top_p, min_p) in
            [(5, 1.0, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.05), (40, 0.95, 0.0), (40, 0.8, 0.02), (7, 0.5, 0.3)]
        {
            all.push(Sample { temperature, top_k, top_p, min_p, ..DEFAULT });
        }
    }
    all
}

every_variant! {
    kernels::sample::KERNELS;
    fn equals_the_reference() {
        let devices = contexts();
        for (i, sample) in list_options().iter().enumerate() {
            for (rows, n) in [(1, 1), (17, 2), (5, 63), (9, 65), (3, 257), (8, 900)] {
                let name = format!("{i} {n}");
                let random = draw_words(rows, (i * 1000 + n) as u64);
                check_sample(sample, &draw_logits(&name, rows, n), None, &random, &devices);
                let penalised = Sample { repetition_penalty: 1.3, ..*sample };
                check_sample(&penalised, &draw_logits(&name, rows, n), Some(&draw_marks(&name, rows, n)), &random, &devices);
            }
        }
    }
}

/// A row's token depends only on its logits, options and word, not on other rows of the launch.
#[test]
fn each_row_of_a_launch_has_its_own_options() {
    let mut rows: Vec<(Sample, u64)> =
        list_options().into_iter().zip(draw_words(list_options().len(), 77)).collect();
    let penalised =
        |(sample, word): &(Sample, u64)| (Sample { repetition_penalty: 1.4, ..*sample }, word ^ 5);
    rows.extend(rows.iter().map(penalised).collect::<Vec<_>>());
    let n = 300;
    let (logits, seen) = (draw_logits("mixed", rows.len(), n), draw_marks("mixed", rows.len(), n));
    for cx in contexts() {
        let take_row = |x: &Array, r: usize| Array {
            dtype: x.dtype,
            ..Array::new(&[1, n], x.data[r * n..][..n].to_vec())
        };
        let there = seen.upload(&cx);
        let [token, bad] = record(&logits.upload(&cx), Some(&there), &rows).unwrap();
        assert!(read(&bad).data.iter().all(|bad| *bad == -1.0));
        let (tokens, there) = (read(&token).data, read(&there).data);
        for (r, row) in rows.iter().enumerate() {
            let own = (row.0.repetition_penalty != 1.0).then(|| take_row(&seen, r).upload(&cx));
            let [alone, _] = record(&take_row(&logits, r).upload(&cx), own.as_ref(), &[*row]).unwrap();
            assert_eq!(read(&alone).data[0], tokens[r], "{row:?} on {}", cx.profile.label);
            assert_eq!(there[r * n + tokens[r] as usize], 1.0, "{row:?} on {}", cx.profile.label);
        }
    }
}

#[test]
fn large_vocabularies_equal_the_reference() {
    const V: usize = 151_936;
    let devices: Vec<_> =
        contexts().into_iter().filter(|cx| cx.profile.binding_limit > 4 * V as u64).collect();
    let logits = draw_logits("wide", 4, V);
    for sample in [
        DEFAULT,
        Sample { temperature: 0.0, ..DEFAULT },
        Sample { temperature: 5.0, top_p: 0.95, ..DEFAULT },
        Sample { top_k: 50, top_p: 0.9, min_p: 0.01, ..DEFAULT },
        Sample { temperature: 3.0, top_k: 100_000, ..DEFAULT },
        Sample { temperature: 0.8, repetition_penalty: 1.1, ..DEFAULT },
    ] {
        let mut random = draw_words(2, 9);
        random.extend([0, u64::MAX]);
        let seen = (sample.repetition_penalty != 1.0).then(|| draw_marks("wide", 4, V));
        check_sample(&sample, &logits, seen.as_ref(), &random, &devices);
    }
}

#[test]
fn tokens_tied_with_the_last_kept_token_are_kept() {
    let devices = contexts();
    let ties = Array::new(&[1, 6], vec![1.0, 3.0, 2.0, 2.0, 3.0, 2.0]);
    for sample in [Sample { top_k: 3, ..DEFAULT }, Sample { top_p: 0.8, ..DEFAULT }] {
        for word in draw_words(20, 3) {
            check_sample(&sample, &ties, None, &[word], &devices);
        }
    }
    let p = compute_probabilities(&Sample { top_k: 3, ..DEFAULT }, &ties.data, None);
    assert_eq!(p.iter().filter(|p| **p > 0.0).count(), 5);
}

#[test]
fn infinities_and_nan_are_reported() {
    const INF: f64 = f64::INFINITY;
    for cx in contexts() {
        let rows = Array::new(
            &[4, 3],
            vec![1.0, f64::NAN, f64::NAN, -INF, -INF, -INF, 0.0, INF, 1.0, -INF, 2.0, -INF],
        );
        for sample in list_options() {
            let (tokens, bad) = draw_tokens(&sample, &rows.upload(&cx), None, &draw_words(4, 1));
            assert_eq!(bad, [1.0, 3.0, -1.0, -1.0], "{sample:?} on {}", cx.profile.label);
            assert_eq!(tokens, [1.0, 0.0, 1.0, 1.0], "{sample:?} on {}", cx.profile.label);
        }
    }
}

#[test]
fn invalid_shapes_and_options_are_refused() {
    let cx = &contexts()[0];
    let logits = Array::random("x", &[2, 5]).upload(cx);
    let get_code = |sample: Sample, logits: &Value, seen: Option<&Value>, rows: usize| {
        let rows: Vec<(Sample, u64)> = draw_words(rows, 1).into_iter().map(|word| (sample, word)).collect();
        record(logits, seen, &rows).err().map(|e| e.code)
    };
    assert_eq!(get_code(DEFAULT, &logits, None, 2), None);
    assert_eq!(get_code(DEFAULT, &logits, None, 1), Some(Code::ShapeMismatch));
    assert_eq!(get_code(DEFAULT, &logits.reshape([10]), None, 2), Some(Code::ShapeMismatch));
    assert_eq!(get_code(DEFAULT, &Array::indices("x", &[2, 5], 3).upload(cx), None, 2), Some(Code::Dtype));
    let seen = Array::indices("x", &[2, 4], 2).upload(cx);
    assert_eq!(get_code(DEFAULT, &logits, Some(&seen), 2), Some(Code::ShapeMismatch));
    for sample in [
        Sample { temperature: -1.0, ..DEFAULT },
        Sample { temperature: f64::NAN, ..DEFAULT },
        Sample { top_p: 0.0, ..DEFAULT },
        Sample { min_p: 1.1, ..DEFAULT },
        Sample { repetition_penalty: 0.0, ..DEFAULT },
        Sample { repetition_penalty: 2.0, ..DEFAULT },
    ] {
        assert_eq!(get_code(sample, &logits, None, 2), Some(Code::Option), "{sample:?}");
    }
}
