use std::rc::Rc;

use super::KERNELS;
use super::scales::SCALES;
use crate::context::Context;
use crate::dtype::DType;
use crate::kernel::Kernel;
use crate::kernel::coverage::{assert_all, record_launches};
use crate::kernels::gemm::plan::{self, AccessPatterns, Config, list_candidates};
use crate::kernels::gemm::stage::Read;
use crate::kernels::gemm::{Gemm, Matrix, Precision, Segment, append, gemm, gemm_with};
use crate::ops::checks::{Array, contexts, gpu_contexts, read};
use crate::profile::{Kind, Profile};

/// The kernels whose variants these tests launch.
pub(crate) const COVERED: &[&Kernel] = &KERNELS;

/// Returns the gpus that compute in f16: without a binding limit, and with one of 4 KiB.
fn list_f16_contexts() -> Vec<Rc<Context>> {
    let all: Vec<_> = contexts().into_iter().filter(|cx| cx.profile.f16_arithmetic).collect();
    if all.is_empty() {
        println!("not run: products in f16 (no GPU here computes in f16)");
    }
    all
}

/// The power of two that scales a line.
fn compute_scale(line: impl Iterator<Item = f64>) -> f64 {
    let largest = line.map(f64::abs).filter(|v| v.is_finite()).fold(0.0, f64::max);
    if largest == 0.0 { 1.0 } else { 2f64.powi((14 - largest.log2().floor() as i32).min(126)) }
}

/// Rounds lines to f16 as the kernel does. `steps` are the strides of lines and of terms, in elements.
fn round_lines(x: &[f64], [lines, terms]: [usize; 2], steps: [usize; 2]) -> Vec<f64> {
    let mut rounded = x.to_vec();
    for line in 0..lines {
        let at = |t: usize| line * steps[0] + t * steps[1];
        let scale = compute_scale((0..terms).map(|t| x[at(t)]));
        (0..terms).for_each(|t| rounded[at(t)] = half::f16::from_f64(x[at(t)] * scale).to_f64() / scale);
    }
    rounded
}

/// A product C = 1.5 · A·B + bias + C over odd sizes.
struct Problem {
    reads: AccessPatterns,
    sizes: [usize; 3],
    batch: usize,
    shift: usize,
    a: Array,
    b: Array,
    bias: Array,
    c: Array,
}

impl Problem {
    /// Sizes past the ends of the largest tiles; factors that can be read by `reads` and no wider.
    fn new(reads: AccessPatterns, [m, n, k]: [usize; 3], batch: usize, stored: DType) -> Problem {
        let wide = reads != AccessPatterns::ELEMENTS;
        let odd = |n: usize| if wide { n } else { n + 1 };
        let [m, n, k] = [m + 3, if reads.b == Read::Lines { n } else { odd(n) }, odd(k)];
        let shift = if wide { 4 } else { 3 };
        Problem {
            reads,
            sizes: [m, n, k],
            batch,
            shift,
            a: Array::random("a", &[shift + batch * m * k]),
            b: Array::random("b", &[n * k]).stored(stored),
            bias: Array::random("bias", &[n]),
            c: Array::random("c", &[batch, m, n]),
        }
    }

    /// Whether B is stored [N, K].
    fn trans(&self) -> bool {
        self.reads.b != Read::Lines
    }

    fn b_at(&self, t: usize, j: usize) -> usize {
        let [_, n, k] = self.sizes;
        if self.trans() { j * k + t } else { t * n + j }
    }

    /// Computes the product with `config`, or with the plan's choice.
    fn run(&self, cx: &Rc<Context>, config: Option<Config>, bias: bool) -> Array {
        let [m, n, k] = self.sizes;
        let (a, b, bias_of, c) =
            (self.a.upload(cx), self.b.upload(cx), self.bias.upload(cx), self.c.upload(cx));
        let a = a.sub_range(self.shift, [self.batch * m * k]);
        let g = Gemm::new(m, n, k).batch(self.batch).alpha(1.5).accumulate().precision(Precision::F16);
        let left = Matrix::new(&a, k).with_batch_stride(m * k);
        let right = Matrix::new(&b, if self.trans() { k } else { n }).transposed_if(self.trans());
        assert_eq!(AccessPatterns::choose(&g, &left, &right, true), self.reads);
        let (bias, out) = (bias.then_some(&bias_of), Matrix::new(&c, n).with_batch_stride(m * n));
        match config {
            Some(config) => append(cx, config, g, left, right, bias, None, out),
            None => gemm(cx, g, left, right, bias, out),
        }
        .unwrap();
        read(&c)
    }

    /// Compares a product with the f64 sums of the rounded factors, whose products are exact: rounding in f32 occurs in
    /// the K additions and the few operations of the epilogue, each by at most 2⁻²⁴ of its operands' magnitudes. Also
    /// compares it with the sums of the original factors, each with a rounding error of 2⁻¹¹.
    fn check(&self, what: &str, got: &Array, bias: bool) {
        let (Problem { sizes: [m, n, k], batch, shift, .. }, whole) = (self, &self.a.data[self.shift..]);
        let a = round_lines(whole, [batch * m, *k], [*k, 1]);
        let b = round_lines(&self.b.data, [*n, *k], if self.trans() { [*k, 1] } else { [1, *n] });
        for i in 0..batch * m {
            for j in 0..*n {
                let sum = |a: &[f64], b: &[f64], f: fn(f64) -> f64| -> f64 {
                    (0..*k).map(|t| f(a[i * k + t] * b[self.b_at(t, j)])).sum()
                };
                let (bias, c) = (if bias { self.bias.data[j] } else { 0.0 }, self.c.data[i * n + j]);
                let (size, got) = (1.5 * sum(&a, &b, f64::abs), got.data[i * n + j]);
                let (expected, unrounded) =
                    (1.5 * sum(&a, &b, |v| v) + bias + c, 1.5 * sum(whole, &self.b.data, |v| v) + bias + c);
                let f32s = 2f64.powi(-24) * (*k as f64 + 6.0) * (size + bias.abs() + c.abs());
                let bound = f32s + 2f64.powi(-10) * size;
                let at = format!("{what}: [{i}, {j}] of {m} x {n} x {k} from {shift}: {got}");
                assert!((got - expected).abs() <= f32s, "{at} for {expected}, {f32s} at most");
                assert!((got - unrounded).abs() <= bound, "{at} for {unrounded}, {bound} at most");
            }
        }
    }
}

/// Variants for every storage type of B, with and without bias; whole and in windows.
#[test]
fn every_listed_f16_variant_is_launched_and_equals_the_reference() {
    let all = list_f16_contexts();
    let launched = record_launches(|| {
        for stored in super::scales::STORED {
            for reads in AccessPatterns::list_for_weights() {
                let problem = Problem::new(reads, [132, 140, 36], 2, stored);
                let configs = || {
                    super::list_configs().filter(|config| matches!(config, Config::Tile(_, r) if *r == reads))
                };
                for (cx, bias) in all.iter().take(1).flat_map(|cx| [(cx, false), (cx, true)]) {
                    let mut first: Option<Array> = None;
                    for config in configs() {
                        let (what, got) =
                            (format!("{config:?} by {stored}"), problem.run(cx, Some(config), bias));
                        match &first {
                            Some(first) => assert_eq!(first.data, got.data, "{what}"),
                            None => problem.check(&what, &got, bias),
                        }
                        first.get_or_insert(got);
                    }
                }
                // Each window has separate scales.
                for cx in all.iter().skip(1) {
                    let config = configs().next().unwrap();
                    problem.check("windows", &problem.run(cx, Some(config), true), true);
                }
            }
        }
        // A's columns are contiguous lines, too, in f32.
        for cx in all.iter().take(1) {
            for stored in super::scales::STORED {
                let x = Array::random("x", &[40, 70]).stored(stored);
                assert_eq!(
                    launch_scales(cx, &x, [70, 40], [1, 70]),
                    compute_scales(&x.data, [70, 40], [1, 70])
                );
                assert_eq!(
                    launch_scales(cx, &x, [40, 70], [70, 1]),
                    compute_scales(&x.data, [40, 70], [70, 1])
                );
            }
        }
    });
    assert_all(COVERED, &launched, |_| !all.is_empty());
}

fn compute_scales(x: &[f64], [lines, terms]: [usize; 2], steps: [usize; 2]) -> Vec<f64> {
    (0..lines).map(|line| compute_scale((0..terms).map(|t| x[line * steps[0] + t * steps[1]]))).collect()
}

fn launch_scales(cx: &Rc<Context>, x: &Array, [lines, terms]: [usize; 2], steps: [usize; 2]) -> Vec<f64> {
    let (x, to) = (x.upload(cx), cx.empty([lines], DType::F32).unwrap());
    super::scales::launch(cx, &x.range(), &to, [1, lines, terms], [0, steps[0], steps[1]]);
    read(&to).data
}

#[test]
fn scales_move_the_largest_magnitude_to_the_top_of_the_f16_range() {
    assert_eq!(SCALES.name, "gemm_scales");
    for cx in gpu_contexts() {
        // Powers of two, values just below one, both ends of f32, subnormals, and values that are not finite.
        let largest =
            [1.0, 1.999_999, 2.0, 65504.0, 65520.0, 1e5, 3.0e38, 1e-9, 6e-8, 1e-38, 1e-30, -1e-9, -7.0];
        let x = Array::from_fn(&[largest.len(), 130], |i| if i[1] == 77 { largest[i[0]] } else { 0.0 });
        let x = x.stored(DType::F32);
        let got = launch_scales(&cx, &x, [largest.len(), 130], [130, 1]);
        for (scale, v) in got.iter().zip(largest) {
            let top = (scale * v as f32 as f64).abs();
            assert_eq!(scale.log2().fract(), 0.0, "{v}");
            assert!((16384.0..32768.0).contains(&top) || (v < 1e-33 && top > 0.5), "{v}: {top}");
        }
        let odd = Array::new(&[4, 2], vec![f64::INFINITY, 3.0, f64::NAN, 3.0, 0.0, 0.0, 1e-42, 0.0]);
        let got = launch_scales(&cx, &odd, [4, 2], [2, 1]);
        assert_eq!(got[..2], [8192.0; 2]);
        // The largest power of two with a normal inverse.
        assert_eq!(got[2..], [2f64.powi(126); 2]);
    }
}

/// Covers gradients as small as a large batch's, activations above the range of f16, and rows of very different size.
#[test]
fn rows_of_any_magnitude_keep_their_accuracy() {
    let sizes = |i: usize| [1.0, 1e-9, 1e5, 3e-20, 1e18, 0.0, 1e-5, 7e4][i % 8];
    for cx in list_f16_contexts() {
        for reads in AccessPatterns::list_for_weights() {
            let mut problem = Problem::new(reads, [68, 76, 36], 1, DType::F32);
            problem.c = problem.c.map(|_| 0.0);
            let [_, n, k] = problem.sizes;
            let shift = problem.shift;
            for (at, v) in problem.a.data[shift..].iter_mut().enumerate() {
                *v *= sizes(at / k);
            }
            for j in 0..n {
                (0..k).for_each(|t| {
                    let at = problem.b_at(t, j);
                    problem.b.data[at] *= sizes(j / 3);
                });
            }
            for array in [&mut problem.a, &mut problem.b] {
                *array = array.stored(DType::F32);
            }
            let got = problem.run(&cx, None, false);
            assert!(got.data.iter().any(|v| *v != 0.0 && v.abs() < 1e-20), "some products are small");
            problem.check(&cx.profile.label, &got, false);
        }
    }
}

/// A row whose elements exceed the range of f16 loses only what f32 would round away next to the largest.
#[test]
fn a_row_of_mixed_magnitudes_loses_only_its_smallest_elements() {
    for cx in list_f16_contexts() {
        let mut problem = Problem::new(AccessPatterns::ALL[1], [68, 76, 36], 1, DType::F32);
        let shift = problem.shift;
        for (at, v) in problem.a.data[shift..].iter_mut().enumerate() {
            *v *= 10f64.powi(-((at % 13) as i32));
        }
        problem.a = problem.a.stored(DType::F32);
        problem.check(&cx.profile.label, &problem.run(&cx, None, true), true);
    }
}

#[test]
fn non_finite_values_reach_only_their_row_or_column() {
    for cx in list_f16_contexts().into_iter().take(1) {
        for reads in AccessPatterns::list_for_weights() {
            // The last NaN has all bits set, so that rounding could overflow.
            for v in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::from_bits(u64::MAX >> 1)] {
                for of_b in [false, true] {
                    let mut problem = Problem::new(reads, [68, 76, 36], 1, DType::F32);
                    let [m, n, k] = problem.sizes;
                    let (i, j, t) = (m - 1, 5, k - 1);
                    if of_b {
                        let at = problem.b_at(t, j);
                        problem.b.data[at] = v;
                    } else {
                        problem.a.data[problem.shift + i * k + t] = v;
                    }
                    let got = problem.run(&cx, None, true);
                    for (at, got) in got.data.iter().enumerate() {
                        let [row, column] = [at / n, at % n];
                        let what = format!("{v} of b {of_b}: {got} at [{row}, {column}]");
                        let reached = if of_b { column == j } else { row == i };
                        if reached {
                            let other = match of_b {
                                true => problem.a.data[problem.shift + row * k + t],
                                false => problem.b.data[problem.b_at(t, column)],
                            };
                            // NaN may become any value that is not finite; an infinity keeps its sign.
                            let kept = v.is_nan() || (got.is_infinite() && (*got > 0.0) == (v * other > 0.0));
                            assert!(!got.is_finite() && kept, "{what}");
                        } else {
                            assert!(got.is_finite(), "{what}");
                        }
                    }
                }
            }
        }
    }
}

/// The two inverse scales are applied one by one, since their product may overflow f32.
#[test]
fn disjoint_lines_of_huge_numbers_give_zero() {
    for cx in list_f16_contexts().into_iter().take(1) {
        let mut problem = Problem::new(AccessPatterns::ALL[1], [68, 76, 36], 1, DType::F32);
        let (shift, k) = (problem.shift, problem.sizes[2]);
        let even = |at: usize| (at % k).is_multiple_of(2);
        let a = &mut problem.a.data[shift..];
        a.iter_mut().enumerate().for_each(|(at, v)| *v = if even(at) { 2f64.powi(120) } else { 0.0 });
        let b = &mut problem.b.data;
        b.iter_mut().enumerate().for_each(|(at, v)| *v = if even(at) { 0.0 } else { -2f64.powi(120) });
        problem.check("no term", &problem.run(&cx, None, true), true);
    }
}

/// Rounds to nearest, ties to even, on every device.
#[test]
fn halves_are_rounded_to_nearest_even() {
    for cx in list_f16_contexts() {
        let (m, n, k) = (68, 68, 20);
        // The largest element of each row is 1, so that the unit in [1, 2) is 2⁻¹⁰; a column of B selects a term.
        let unit = 2f64.powi(-11);
        let value_of = |t: usize| if t == 0 { 1.0 } else { 0.5 + (t as f64) * 0.125 * unit };
        let a = Array::from_fn(&[m, k], |i| if i[0] % 2 == 0 { value_of(i[1]) } else { -value_of(i[1]) });
        let b = Array::from_fn(&[n, k], |i| if i[0] % k == i[1] { 1.0 } else { 0.0 });
        let (left, right, c) = (a.upload(&cx), b.upload(&cx), cx.empty([m, n], DType::F32).unwrap());
        let g = Gemm::new(m, n, k).precision(Precision::F16);
        gemm(&cx, g, Matrix::new(&left, k), Matrix::new(&right, k).t(), None, Matrix::new(&c, n)).unwrap();
        let expected = Array::from_fn(&[m, n], |i| {
            let v = half::f16::from_f64(value_of(i[1] % k) * 16384.0).to_f64() / 16384.0;
            if i[0] % 2 == 0 { v } else { -v }
        });
        assert_eq!(read(&c).data, expected.data, "{}", cx.profile.label);
    }
}

/// f16 is used if the shape and the precision allow it and the device supports it; otherwise the result is
/// bit-identical to f32.
#[test]
fn only_large_products_that_request_f16_use_it() {
    let Some(cx) = gpu_contexts().into_iter().next() else { return };
    let unrounded = Context::new(Profile { f16_arithmetic: false, ..cx.profile.clone() }, cx.sink());
    let product = |cx: &Rc<Context>, [m, n, k]: [usize; 3], precision: Precision, second: bool| {
        let [a, b, a2, b2] = [("a", m, k), ("b", n, k), ("a2", m, 4), ("b2", n, 4)]
            .map(|(name, lines, terms)| Array::random(name, &[lines, terms]).upload(cx));
        let c = cx.empty([m, n], DType::F32).unwrap();
        let more = Segment { a: Matrix::new(&a2, 4), b: Matrix::new(&b2, 4).t(), k: 4, alpha: 0.5 };
        let g = Gemm::new(m, n, k).precision(precision);
        let (left, right) = (Matrix::new(&a, k), Matrix::new(&b, k).t());
        cx.count_launches(true);
        gemm_with(cx, g, left, right, None, second.then_some(more), Matrix::new(&c, n)).unwrap();
        let launched = cx.count_launches(false);
        let in_f16 = launched.contains_key("gemm_f16");
        assert_eq!(launched.get("gemm_scales").copied().unwrap_or(0) > 0, in_f16, "{launched:?}");
        (read(&c).data, in_f16)
    };
    for (sizes, large) in [
        ([65, 65, 17], true),
        // A split sum.
        ([130, 200, 500], true),
        ([64, 65, 17], false),
        ([65, 64, 17], false),
        ([65, 65, 16], false),
    ] {
        let (exact, _) = product(&cx, sizes, Precision::Exact, true);
        for precision in [Precision::Exact, Precision::Bf16, Precision::F16] {
            let requested = precision == Precision::F16;
            let (got, in_f16) = product(&cx, sizes, precision, true);
            assert_eq!(in_f16, requested && large && cx.profile.f16_arithmetic, "{sizes:?} {precision:?}");
            assert_eq!(got != exact, in_f16, "{sizes:?} {precision:?}");
            // Includes sums of parts with separate scales.
            let largest = exact.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            let error = got.iter().zip(&exact).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
            assert!(error <= 2f64.powi(-9) * largest, "{sizes:?} {precision:?}: {error} beside {largest}");
            // The same in every run.
            assert_eq!(product(&cx, sizes, precision, true).0, got);
        }
        let (without, in_f16) = product(&unrounded, sizes, Precision::F16, true);
        assert!(without == exact && !in_f16, "a device without f16 computes in f32");
    }
    let processor = contexts().swap_remove(0);
    assert_eq!(processor.profile.kind, Kind::Cpu);
    let [exact, requested] =
        [Precision::Exact, Precision::F16].map(|p| product(&processor, [130, 200, 500], p, true));
    assert_eq!(exact, requested);
}

/// Interchangeable variants have the same precision.
#[test]
fn all_candidates_have_the_same_precision() {
    let cx = contexts().swap_remove(0);
    for [m, n, k] in [[65, 65, 17], [200, 130, 64], [2048, 1536, 576], [4096, 49_152, 576]] {
        let [a, b] = [m * k, n * k].map(|size| {
            let meta = Context::new(cx.profile.clone(), crate::device::Sink::Meta);
            meta.empty([size], DType::F32).unwrap()
        });
        let (left, right) = (Matrix::new(&a, k), Matrix::new(&b, k).t());
        let classify_and_list = |precision| {
            let g = Gemm::new(m, n, k).precision(precision);
            assert_eq!(plan::is_in_f16(&g, &right), precision == Precision::F16);
            let class = crate::kernels::gemm::tuned::classify(&g, &left, &right, [false; 2]);
            (list_candidates(&g, &left, &right, &Matrix::new(&b, n), [false; 2], true), class)
        };
        let ([exact, requested], f16) =
            ([Precision::Exact, Precision::F16].map(classify_and_list), Config::is_in_f16);
        assert!(requested.0.len() > 1 && requested.0.iter().all(|config| f16(*config)), "{:?}", requested.0);
        assert!(!exact.0.iter().any(|config| f16(*config)));
        assert_ne!(exact.1, requested.1);
        assert_ne!(exact.1.to_string(), requested.1.to_string());
    }
}
