use std::rc::Rc;

use super::{Attention, reference::compute_reference};
use crate::context::{Context, Value};
use crate::device::{Device, Sink, cpu::Cpu};
use crate::dtype::DType;
use crate::error::Code;
use crate::kernels::gemm::Precision;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, check, check_non_finite, compare, contexts, read};
use crate::ops::dropout::Dropout;
use crate::profile::{Kind, Profile};

mod dropout;
mod heads_first;

pub(crate) const CAUSAL: Attention = Attention {
    causal: true,
    window: None,
    scale: None,
    offset: 0,
    length: None,
    segments: false,
    mask: false,
    heads_first: false,
    precision: Precision::Exact,
    dropout: Dropout { p: 0.0, seed: 0, offset: 0 },
};

pub(crate) const DROPOUT: Dropout = Dropout { p: 0.3, seed: 7, offset: 1 << 40 | 3 };

/// Returns q, k, v with sizes [B, T, S, Hkv, group, D].
fn draw_inputs([b, t, s, kv_heads, group, dim]: [usize; 6]) -> Vec<Array> {
    let kv = [b, s, kv_heads, dim];
    vec![Array::random("q", &[b, t, kv_heads * group, dim]), Array::random("k", &kv), Array::random("v", &kv)]
}

fn make_labels(shape: &[usize], f: impl Fn(&[usize]) -> usize) -> Array {
    Array { dtype: DType::I32, ..Array::from_fn(shape, |i| f(i) as f64) }
}

fn check_attention(op: Attention, x: &[Array]) {
    check(&op, x, &|x| compute_reference(&op, x));
}

#[test]
fn lengths_around_tile_ends_equal_the_reference() {
    for t in [1, 2, 63, 64, 65] {
        check_attention(CAUSAL, &draw_inputs([1, t, t, 1, 2, 8]));
        check_attention(Attention::default(), &draw_inputs([2, t, 65 - t / 2, 2, 1, 4]));
    }
    check_attention(CAUSAL, &draw_inputs([1, 257, 257, 1, 1, 4]));
    check_attention(Attention::default(), &draw_inputs([1, 65, 129, 1, 3, 1]));
}

#[test]
fn head_sizes_and_groups_equal_the_reference() {
    for (dim, group) in [(1, 1), (24, 2), (64, 3), (80, 1), (128, 2), (250, 1), (256, 3)] {
        check_attention(CAUSAL, &draw_inputs([1, 19, 19, 1, group, dim]));
    }
    check_attention(Attention { scale: Some(0.3), ..CAUSAL }, &draw_inputs([2, 40, 40, 3, 3, 24]));
}

#[test]
fn key_windows_equal_the_reference() {
    for window in [1, 7, 64, 65, 300] {
        check_attention(Attention { window: Some(window), ..CAUSAL }, &draw_inputs([1, 70, 70, 1, 2, 8]));
    }
    let op = Attention { window: Some(50), offset: 120, length: Some(140), ..CAUSAL };
    check_attention(op, &draw_inputs([1, 20, 150, 2, 2, 8]));
}

#[test]
fn queries_after_a_cache_equal_the_reference() {
    for (t, offset, capacity) in
        [(1, 0, 8), (1, 64, 70), (1, 130, 131), (3, 62, 65), (9, 60, 200), (40, 30, 70)]
    {
        let op = Attention { offset, length: Some(offset + t), ..CAUSAL };
        check_attention(op, &draw_inputs([2, t, capacity, 2, 3, 8]));
    }
    // A query before the last key, and one after it.
    check_attention(Attention { offset: 5, ..CAUSAL }, &draw_inputs([1, 3, 70, 1, 2, 8]));
    check_attention(Attention { offset: 90, ..CAUSAL }, &draw_inputs([1, 3, 70, 1, 2, 8]));
}

#[test]
fn segments_isolate_the_texts_of_a_packed_row() {
    let mut x = draw_inputs([2, 70, 70, 1, 2, 8]);
    x.push(make_labels(&[2, 70], |i| (i[1] + 11 * i[0]) / 23));
    check_attention(Attention { segments: true, ..CAUSAL }, &x);
    check_attention(Attention { segments: true, ..Attention::default() }, &x);
    // With decoded rows among them.
    let mut x = draw_inputs([1, 2, 80, 1, 2, 8]);
    x.push(make_labels(&[1, 80], |i| i[1] / 30));
    check_attention(Attention { segments: true, offset: 66, length: Some(68), ..CAUSAL }, &x);
}

#[test]
fn masked_keys_equal_the_reference() {
    let mut x = draw_inputs([2, 66, 66, 1, 2, 8]);
    // Right padding in one row, a sparse mask in the other; the first key is always visible.
    x.push(make_labels(
        &[2, 70],
        |i| if i[0] == 0 { (i[1] < 40) as usize } else { (i[1] % 3 == 0) as usize },
    ));
    check_attention(Attention { mask: true, ..CAUSAL }, &x);
    check_attention(Attention { mask: true, ..Attention::default() }, &x);
    let (op, mask) = (Attention { segments: true, mask: true, ..CAUSAL }, x.pop().unwrap());
    x.push(make_labels(&[2, 66], |i| i[1] / 33));
    x.push(mask.map(|_| 1.0));
    check_attention(op, &x);
    let mut x = draw_inputs([2, 1, 70, 1, 2, 8]);
    x.push(mask);
    check_attention(Attention { mask: true, offset: 65, length: Some(66), ..CAUSAL }, &x);
}

/// On a processor decoding a left-padded text gives the bits of decoding it alone.
#[test]
fn left_padding_changes_no_bit_of_a_decoded_row() {
    let cx = &contexts()[0];
    let (length, dim) = (70, 24);
    for pad in [0, 1, 15, 16, 17, 63, 64, 200] {
        let alone = draw_inputs([1, 1, length, 2, 3, dim]);
        let mut padded = alone.clone();
        for x in &mut padded[1..] {
            let mut data = vec![0.5; pad * 2 * dim];
            data.extend(&x.data);
            *x = Array::new(&[1, pad + length, 2, dim], data);
        }
        padded.push(make_labels(&[1, pad + length], |i| (i[1] >= pad) as usize));
        let attend = |op: Attention, x: &[Array]| {
            let values: Vec<Value> = x.iter().map(|x| x.upload(cx)).collect();
            read(&run(cx, &op, &values.iter().collect::<Vec<_>>()).unwrap()[0])
        };
        let expected = attend(Attention { offset: length - 1, ..CAUSAL }, &alone);
        let got = attend(Attention { offset: pad + length - 1, mask: true, ..CAUSAL }, &padded);
        assert_eq!(got.data, expected.data, "{pad} keys of padding");
    }
}

/// Returns outputs and gradients on one device, for fixed output gradients.
fn run_with_gradients(cx: &Rc<Context>, op: &Attention, x: &[Array]) -> Vec<Array> {
    let values: Vec<Value> = x.iter().map(|x| x.upload(cx)).collect();
    let outputs = run(cx, op, &values.iter().collect::<Vec<_>>()).unwrap();
    let d: Vec<_> = outputs.iter().map(|y| Some(Array::random("d", &y.shape).upload(cx))).collect();
    let needs: Vec<bool> = x.iter().map(|x| x.dtype == DType::F32).collect();
    let d_inputs = op.backward(cx, &Backward::after(op, &values, &outputs, &needs, d)).unwrap();
    outputs.iter().chain(d_inputs.iter().flatten()).map(read).collect()
}

#[test]
fn a_fully_masked_query_gives_zeros_and_no_gradient() {
    for (t, s) in [(1, 40), (65, 65)] {
        let mut x = draw_inputs([2, t, s, 1, 2, 8]);
        x.push(make_labels(&[2, s], |i| i[0]));
        let op = Attention { mask: true, ..Attention::default() };
        let alone: Vec<Array> = x
            .iter()
            .map(|x| {
                let shape = [&[1], &x.shape[1..]].concat();
                Array { shape, data: x.data[x.data.len() / 2..].to_vec(), dtype: x.dtype }
            })
            .collect();
        let expected = compute_reference(&op, &alone);
        for cx in contexts() {
            let got = run_with_gradients(&cx, &op, &x);
            for (y, what) in got.iter().zip(["o", "lse", "d_q", "d_k", "d_v"]) {
                let (first, second) = y.data.split_at(y.data.len() / 2);
                let nothing = if what == "lse" { -3.4e38f32 as f64 } else { 0.0 };
                assert!(first.iter().all(|v| *v == nothing), "{what} on {}", cx.profile.label);
                assert!(second.iter().all(|v| v.is_finite()), "{what} on {}", cx.profile.label);
            }
            let half = Array::new(&expected[0].shape, got[0].data[got[0].data.len() / 2..].to_vec());
            compare(&format!("o on {}", cx.profile.label), &half, &expected[0], 1e-5);
        }
    }
}

#[test]
fn non_finite_values_reach_only_queries_that_see_them() {
    for t in [3, 70] {
        for window in [None, Some(2)] {
            for (which, at) in [(0, 9), (0, 8 * t), (1, 13), (2, 13), (1, 8 * t - 1), (2, 8 * t - 1)] {
                for v in [f64::NAN, f64::INFINITY] {
                    let mut x = draw_inputs([1, t, t, 1, 2, 8]);
                    x[which].data[at] = v;
                    let op = Attention { window, ..CAUSAL };
                    check_non_finite(&op, &x, &|x| compute_reference(&op, x));
                    let op = Attention { precision: Precision::Bf16, ..op };
                    for cx in contexts() {
                        for (y, expected) in
                            run_with_gradients(&cx, &op, &x).iter().zip(compute_reference(&op, &x))
                        {
                            // Scores are below 3 and have a relative error of at most 2⁻⁸; weights likewise.
                            compare(&format!("{op:?} on {}", cx.profile.label), y, &expected, 3.0 / 128.0);
                        }
                    }
                }
            }
        }
    }
    // A value that rounds to infinity, visible only to the later queries.
    let mut x = draw_inputs([1, 70, 70, 1, 2, 8]);
    x[2].data[8 * 20] = 3.4e38;
    for cx in contexts() {
        let got = run_with_gradients(&cx, &ROUNDED, &x);
        assert!(got[0].data[..16 * 20].iter().all(|v| v.is_finite()), "{}", cx.profile.label);
    }
    // In another segment, and hidden by the mask.
    let mut x = draw_inputs([1, 70, 70, 1, 2, 8]);
    (x[1].data[8 * 20], x[2].data[8 * 20]) = (f64::NAN, f64::NAN);
    for op in [
        Attention { segments: true, ..Attention::default() },
        Attention { mask: true, ..Attention::default() },
    ] {
        let mut x = x.clone();
        x.push(make_labels(&[1, 70], |i| if op.mask { (i[1] != 20) as usize } else { i[1] / 33 }));
        check_non_finite(&op, &x, &|x| compute_reference(&op, x));
    }
}

#[test]
fn gradients_propagate_nan() {
    let mut x = draw_inputs([1, 66, 66, 1, 2, 8]);
    x[0].data[16 * 40] = f64::NAN;
    for cx in contexts() {
        let got = run_with_gradients(&cx, &CAUSAL, &x);
        for (i, name) in [(2, "d_q"), (3, "d_k"), (4, "d_v")] {
            // Query 40 sees keys 0 to 40.
            let row = if i == 2 { 16 * 40 } else { 0 };
            assert!(got[i].data[row].is_nan(), "{name} on {}", cx.profile.label);
        }
    }
}

/// Large scores: the softmax must neither overflow nor lose the sum of the smaller weights.
#[test]
fn softmax_of_large_scores_equals_the_reference() {
    let x = draw_inputs([1, 65, 65, 1, 1, 8]).into_iter().map(|x| x.map(|v| v * 20.0)).collect::<Vec<_>>();
    // Scores of about 1e3 have a rounding error of 6e-8 · 1e3, which appears in the exponent; a score is a sum of a few
    // such terms: 2e-4.
    let op = Attention { scale: Some(0.5), ..CAUSAL };
    crate::ops::checks::check_within(2e-4, &op, &x, &|x| compute_reference(&op, x));
}

const ROUNDED: Attention = Attention { precision: Precision::Bf16, ..CAUSAL };

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|v| v * v).sum::<f64>().sqrt()
}

/// Factors have 8 bits, so their relative error is at most 2⁻⁹, on average 2⁻⁹ / √3. Errors of terms are independent,
/// so a sum has the same relative error as a term. At most six roundings separate an input from a gradient: 2⁻⁹ · √(6 /
/// 3). Where the gradients of weights cancel, the error is more than twice that: 2⁻⁷.
#[test]
fn bf16_products_stay_within_their_rounding_error() {
    let mut labelled = draw_inputs([2, 70, 70, 1, 2, 24]);
    labelled.push(make_labels(&[2, 70], |i| i[1] / 40));
    labelled.push(make_labels(&[2, 70], |i| (i[1] % 5 != 3) as usize));
    for (op, x) in [
        (ROUNDED, draw_inputs([1, 257, 257, 1, 3, 64])),
        (ROUNDED, draw_inputs([1, 9, 9, 1, 1, 1])),
        (ROUNDED, draw_inputs([1, 63, 63, 1, 1, 33])),
        (ROUNDED, draw_inputs([2, 65, 65, 2, 3, 80])),
        (Attention { causal: false, ..ROUNDED }, draw_inputs([1, 13, 67, 1, 1, 250])),
        (Attention { window: Some(20), ..ROUNDED }, draw_inputs([1, 66, 66, 2, 3, 16])),
        (Attention { segments: true, mask: true, ..ROUNDED }, labelled),
        // Whole and partial registers of tiles (16 rows, 16 columns, 32 terms) along each side.
        (Attention { causal: false, ..ROUNDED }, draw_inputs([1, 17, 33, 1, 1, 48])),
        (Attention { causal: false, ..ROUNDED }, draw_inputs([1, 63, 130, 1, 1, 72])),
        (Attention { causal: false, ..ROUNDED }, draw_inputs([2, 64, 128, 1, 1, 32])),
        (Attention { offset: 32, ..ROUNDED }, draw_inputs([1, 33, 65, 2, 1, 128])),
        (Attention { offset: 46, ..ROUNDED }, draw_inputs([1, 17, 63, 1, 3, 256])),
        (Attention { window: Some(40), ..ROUNDED }, draw_inputs([1, 150, 150, 1, 1, 96])),
    ] {
        for cx in contexts() {
            let exact = run_with_gradients(&cx, &Attention { precision: Precision::Exact, ..op }, &x);
            for (i, (got, exact)) in run_with_gradients(&cx, &op, &x).iter().zip(&exact).enumerate() {
                let error = norm(got.data.iter().zip(&exact.data).map(|(a, b)| a - b));
                let size = norm(exact.data.iter().copied());
                assert!(
                    error <= size / 128.0,
                    "{op:?}: {i} is off by {error} of {size} on {}",
                    cx.profile.label
                );
            }
        }
    }
}

/// Fills a thread's scratch with NaN, which would show in any sum that reads beyond the data packed by the call.
#[test]
fn stale_scratch_contents_change_no_bit() {
    let open_context = || {
        let device = Device::start(|| Cpu::open(1)).unwrap();
        Context::new(device.profile.clone(), Sink::Thread(device))
    };
    let nan: Vec<Array> =
        draw_inputs([1, 130, 130, 1, 1, 256]).into_iter().map(|x| x.map(|_| f64::NAN)).collect();
    let used = open_context();
    for sizes in [
        [1, 1, 1, 1, 1, 1],
        [1, 63, 1, 1, 1, 48],
        [1, 17, 33, 1, 1, 16],
        [1, 9, 65, 1, 1, 72],
        [2, 5, 63, 2, 3, 8],
        [1, 70, 130, 1, 1, 80],
        [1, 33, 31, 1, 2, 250],
    ] {
        for op in [ROUNDED, CAUSAL, Attention { causal: false, ..ROUNDED }] {
            run_with_gradients(&used, &op, &nan);
            let x = draw_inputs(sizes);
            for (got, fresh) in
                run_with_gradients(&used, &op, &x).iter().zip(run_with_gradients(&open_context(), &op, &x))
            {
                assert!(fresh.data.iter().all(|v| v.is_finite()), "{op:?} {sizes:?}");
                assert_eq!(got.data, fresh.data, "{op:?} {sizes:?}");
            }
        }
    }
}

/// Runs the GPU's plan of forward, split for bindings of 4 KiB, on the CPU implementation: this tests windows even without a GPU.
/// Backward's kernels have no CPU implementation.
#[test]
fn windows_of_a_launch_add_up_on_the_cpu() {
    let device = Device::start(|| {
        let (profile, cpu) = Cpu::open(0)?;
        Ok((Profile { kind: Kind::Gpu, binding_limit: 4096, ..profile }, cpu))
    })
    .unwrap();
    let windowed = Context::new(device.profile.clone(), Sink::Thread(device));
    let cpu = &contexts()[0];
    let mut labelled = draw_inputs([2, 70, 70, 2, 2, 8]);
    labelled.push(make_labels(&[2, 70], |i| i[1] / 40));
    labelled.push(make_labels(&[2, 70], |i| (i[1] % 5 != 3) as usize));
    for (op, x) in [
        (CAUSAL, draw_inputs([1, 130, 130, 1, 2, 24])),
        (Attention::default(), draw_inputs([2, 33, 65, 2, 1, 64])),
        (Attention { window: Some(20), ..CAUSAL }, draw_inputs([1, 66, 66, 2, 3, 8])),
        (Attention { offset: 99, length: Some(100), ..CAUSAL }, draw_inputs([1, 1, 120, 2, 3, 64])),
        (Attention { segments: true, mask: true, ..CAUSAL }, labelled),
        (ROUNDED, draw_inputs([1, 130, 130, 1, 1, 24])),
        (Attention { causal: false, ..ROUNDED }, draw_inputs([2, 33, 65, 2, 1, 64])),
        (Attention { dropout: DROPOUT, ..CAUSAL }, draw_inputs([2, 70, 70, 2, 2, 24])),
    ] {
        // A weight is rounded relative to the largest of its window: two roundings by 2⁻⁹.
        let tolerance = if op.precision == Precision::Bf16 { 1.0 / 256.0 } else { 1e-5 };
        let compute_outputs = |cx: &Rc<Context>| -> Vec<Array> {
            let values: Vec<Value> = x.iter().map(|x| x.upload(cx)).collect();
            run(cx, &op, &values.iter().collect::<Vec<_>>()).unwrap().iter().map(read).collect()
        };
        for (i, (got, expected)) in compute_outputs(&windowed).iter().zip(&compute_outputs(cpu)).enumerate() {
            compare(&format!("{op:?}: {i}"), got, expected, tolerance);
        }
    }
}

/// The order of every sum depends only on the shapes: the same bits for any number of threads.
#[test]
fn the_thread_count_changes_no_bit() {
    let x = draw_inputs([1, 200, 200, 2, 3, 16]);
    let run_with_threads = |threads: usize| {
        let device = Device::start(move || Cpu::open(threads)).unwrap();
        let cx = Context::new(device.profile.clone(), Sink::Thread(device));
        let dropped = Attention { dropout: DROPOUT, ..CAUSAL };
        [CAUSAL, ROUNDED, dropped].map(|op| run_with_gradients(&cx, &op, &x)).concat()
    };
    let one = run_with_threads(1);
    for threads in [2, 5] {
        for (a, b) in run_with_threads(threads).iter().zip(&one) {
            assert_eq!(a.data, b.data);
        }
    }
}

#[test]
fn invalid_inputs_and_options_are_refused() {
    let cx = &contexts()[0];
    let get_error = |op: Attention, x: &[Array]| {
        let values: Vec<Value> = x.iter().map(|x| x.upload(cx)).collect();
        run(cx, &op, &values.iter().collect::<Vec<_>>()).unwrap_err()
    };
    let mut x = draw_inputs([1, 4, 4, 2, 2, 8]);
    x[2] = Array::random("v", &[1, 4, 3, 8]);
    let error = get_error(CAUSAL, &x);
    assert_eq!(error.code, Code::ShapeMismatch);
    assert!(error.message.starts_with("attention: q [1, 4, 4, 8], k [1, 4, 2, 8] and v [1, 4, 3, 8] "));
    let x = draw_inputs([1, 4, 4, 1, 1, 257]);
    assert_eq!(get_error(CAUSAL, &x).code, Code::ShapeMismatch);
    let mut x = draw_inputs([1, 4, 4, 1, 1, 8]);
    assert_eq!(get_error(Attention { length: Some(5), ..CAUSAL }, &x).code, Code::ShapeMismatch);
    assert_eq!(get_error(Attention { window: Some(2), ..Attention::default() }, &x).code, Code::Option);
    for (p, heads_first) in [(1.0, false), (-0.1, false), (0.5, true)] {
        let op = Attention { dropout: Dropout { p, ..DROPOUT }, heads_first, ..CAUSAL };
        assert_eq!(get_error(op, &x).code, Code::Option, "{op:?}");
    }
    x.push(make_labels(&[1, 3], |_| 1));
    let error = get_error(Attention { mask: true, ..CAUSAL }, &x);
    assert_eq!(error.code, Code::ShapeMismatch);
    assert!(error.message.starts_with("attention: mask [1, 3] is not [1, 4 or more]"), "{error}");
    x[3] = Array::random("mask", &[1, 4]);
    assert_eq!(get_error(Attention { mask: true, ..CAUSAL }, &x).code, Code::Dtype);
    let mut x = heads_first::draw_inputs([1, 4, 4, 2, 2, 8]);
    x.push(make_labels(&[1, 4], |_| 1));
    assert_eq!(get_error(Attention { heads_first: true, segments: true, ..CAUSAL }, &x).code, Code::Option);
    x[1] = Array::random("k", &[1, 3, 4, 8]);
    x[2] = x[1].clone();
    let error = get_error(Attention { heads_first: true, ..CAUSAL }, &x[..3]);
    assert!(error.message.contains("are not [B, H, T, D] and twice [B, Hkv, S, D]"), "{error}");
}

#[test]
fn zero_queries_give_zero_gradients() {
    let cx = &contexts()[0];
    let got = run_with_gradients(cx, &CAUSAL, &draw_inputs([1, 0, 4, 1, 2, 8]));
    assert_eq!(got[0].shape, [1, 0, 2, 8]);
    assert!(got[3].data.iter().chain(&got[4].data).all(|v| *v == 0.0));
}

#[test]
fn counted_work_equals_the_products_of_each_pass() {
    let (t, heads, dim) = (64, 2, 8);
    for (op, pairs) in [(Attention::default(), t * t), (CAUSAL, t * (t + 1) / 2)] {
        let product = (2 * heads * pairs * dim) as u64;
        for cx in contexts() {
            let values: Vec<Value> =
                draw_inputs([1, t, t, 1, heads, dim]).iter().map(|x| x.upload(&cx)).collect();
            let d_o = Array::random("d", &values[0].shape).upload(&cx);
            let before = cx.work();
            let outputs = run(&cx, &op, &values.iter().collect::<Vec<_>>()).unwrap();
            let between = cx.work();
            let pass = Backward::after(&op, &values, &outputs, &[true; 3], vec![Some(d_o), None]);
            op.backward(&cx, &pass).unwrap();
            let after = cx.work();
            assert_eq!(between - before, 2 * product, "{}", cx.profile.label);
            // S and dP are computed twice if d_q and the gradients of keys are separate launches. Sums of rows are
            // extra.
            let products = if cx.profile.kind == Kind::Cpu { 5 } else { 7 } * product;
            let counted = after - between;
            assert!(
                (products..products + products / 10).contains(&counted),
                "{}: {counted}",
                cx.profile.label
            );
        }
    }
}
