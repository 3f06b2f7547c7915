use std::rc::Rc;

use lowrank_cpu::quant::BlockType;
use lowrank_cpu::testing::{draw_blocks, unpack_all};

use super::plan::{AccessPatterns, Config, list_candidates};
use super::stage::Read;
use super::{Gemm, KERNELS, Matrix, Segment, append, gemm, gemm_with, in_f16, split};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::kernel::Kernel;
use crate::kernel::coverage::{self, assert_all, record_launches};
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, gpu_contexts, read};
use crate::profile::Kind;

/// Returns Σ over `k` terms of a[i, t] · b[t, j], of row-major factors or their transposes.
fn sum_products(a: &[f64], b: &[f64], [m, n, k]: [usize; 3], [i, j]: [usize; 2], trans: [bool; 2]) -> f64 {
    let term = |t: usize| {
        a[if trans[0] { t * m + i } else { i * k + t }] * b[if trans[1] { j * k + t } else { t * n + j }]
    };
    (0..k).map(term).sum()
}

/// Returns the variants of a problem: on a GPU all interchangeable ones, whichever a plan uses; one on a processor.
fn list_configs(cx: &Context, g: &Gemm, a: &Matrix, b: &Matrix, c: &Matrix, more: [bool; 2]) -> Vec<Config> {
    let all = list_candidates(g, a, b, c, more, cx.profile.subgroup > 0).into_vec();
    let count = if cx.profile.kind == Kind::Gpu { all.len() } else { 1 };
    all.into_iter().take(count).collect()
}

/// Interchangeable variants at sizes around the ends of blocks, with and without vectors, whole and in windows.
#[test]
fn interchangeable_variants_equal_the_reference() {
    for (dtype, [m, n, k]) in [
        (DType::F32, [1, 5, 70]),
        (DType::BF16, [5, 9, 260]),
        (DType::F32, [7, 65, 17]),
        (DType::F16, [70, 33, 65]),
        (DType::F32, [17, 130, 31]),
        (DType::F32, [130, 140, 16]),
        (DType::F32, [2, 2, 2]),
        (DType::F32, [1, 68, 260]),
        (DType::F16, [1, 35, 97]),
        (DType::BF16, [3, 132, 128]),
        (DType::F32, [4, 33, 131]),
        (DType::F16, [16, 66, 40]),
        (DType::BF16, [36, 36, 12]),
    ] {
        for trans in [[false, true], [true, false], [false, false], [true, true]] {
            let [trans_a, trans_b] = trans;
            let a = Array::random("a", &if trans_a { [3, k, m] } else { [3, m, k] });
            let b = Array::random("b", &if trans_b { [n, k] } else { [k, n] }).stored(dtype);
            let (bias, c) = (Array::random("bias", &[n]), Array::random("c", &[3, m, n]));
            let expected = Array::from_fn(&[3, m, n], |i| {
                let product = sum_products(&a.data[i[0] * m * k..], &b.data, [m, n, k], [i[1], i[2]], trans);
                1.5 * product + bias.data[i[2]] + c.data[(i[0] * m + i[1]) * n + i[2]]
            });
            for cx in contexts() {
                let (a, b, bias) = (a.upload(&cx), b.upload(&cx), bias.upload(&cx));
                let g = Gemm::new(m, n, k).batch(3).alpha(1.5).accumulate();
                let left = Matrix::new(&a, if trans_a { m } else { k })
                    .transposed_if(trans_a)
                    .with_batch_stride(m * k);
                let right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
                let all = list_configs(
                    &cx,
                    &g,
                    &left,
                    &right,
                    &Matrix::new(&bias, n).with_batch_stride(m * n),
                    [true, false],
                );
                let mut first = None;
                for config in all {
                    let c = c.upload(&cx);
                    let out = Matrix::new(&c, n).with_batch_stride(m * n);
                    append(&cx, config, g, left, right, Some(&bias), None, out).unwrap();
                    let what = format!("{config:?} at {m} x {n} x {k} on {}", cx.profile.label);
                    let got = read(&c);
                    compare(&what, &got, &expected, TOLERANCE);
                    // Windows are split at a variant's blocks.
                    if cx.profile.binding_limit > 1 << 20 {
                        assert_eq!(first.get_or_insert(got.clone()).data, got.data, "{what}");
                    }
                }
            }
        }
    }
}

/// A problem whose factors can be read by `reads` and no wider.
struct Problem {
    reads: AccessPatterns,
    sizes: [usize; 3],
    batch: usize,
    /// The offset of A, in elements.
    shift: usize,
}

impl Problem {
    /// Sizes past the ends of the largest tiles, or of a few rows or terms.
    fn new(reads: AccessPatterns, kind: [usize; 3], batch: usize) -> Problem {
        let wide = reads != AccessPatterns::ELEMENTS;
        let odd = |n: usize| if wide { n } else { n + 1 };
        // Sizes along which no vectors are read may be odd.
        let [m, n, k] = kind;
        let (m, k) = if reads.a == Read::Lines { (m, k + 1) } else { (m + 3, odd(k)) };
        let n = if reads.b == Read::Lines { n } else { odd(n) };
        Problem { reads, sizes: [m, n, k], batch, shift: if wide { 4 } else { 3 } }
    }

    /// Runs each variant and compares all with the reference and bit for bit with each other.
    fn run(&self, cx: &Rc<Context>, configs: &[Config], b: DType, bias: bool, two: bool) {
        let (Problem { reads, sizes, batch, shift, .. }, [m, n, k]) = (self, self.sizes);
        let r = 6;
        let trans = [reads.a == Read::Lines, reads.b != Read::Lines];
        let a = Array::random("a", &[shift + batch * m * k]);
        let b = Array::random("b", &[n * k]).stored(b);
        let (bias_of, c) = (Array::random("bias", &[n]), Array::random("c", &[*batch, m, n]));
        let (a2, b2) = (Array::random("a2", &[m * r]), Array::random("b2", &[n * r]));
        let expected = Array::from_fn(&[*batch, m, n], |i| {
            let at = [i[1], i[2]];
            let mut v = 1.5 * sum_products(&a.data[shift + i[0] * m * k..], &b.data, *sizes, at, trans);
            v += c.data[(i[0] * m + i[1]) * n + i[2]];
            v += if bias { bias_of.data[i[2]] } else { 0.0 };
            if two { v - 0.75 * sum_products(&a2.data, &b2.data, [m, n, r], at, [false, true]) } else { v }
        });
        let (a, b, bias_of) = (a.upload(cx), b.upload(cx), bias_of.upload(cx));
        let (a2, b2) = (a2.upload(cx), b2.upload(cx));
        let a = a.sub_range(*shift, [batch * m * k]);
        let g = Gemm::new(m, n, k).batch(*batch).alpha(1.5).accumulate();
        let left =
            Matrix::new(&a, if trans[0] { m } else { k }).transposed_if(trans[0]).with_batch_stride(m * k);
        let right = Matrix::new(&b, if trans[1] { k } else { n }).transposed_if(trans[1]);
        assert_eq!(AccessPatterns::choose(&g, &left, &right, bias || two), *reads);
        let (a2, b2) = (Matrix::new(&a2, r), Matrix::new(&b2, r).t());
        let second = two.then_some(Segment { a: a2, b: b2, k: r, alpha: -0.75 });
        let mut first = None;
        for config in configs {
            let c = c.upload(cx);
            let out = Matrix::new(&c, n).with_batch_stride(m * n);
            append(cx, *config, g, left, right, bias.then_some(&bias_of), second, out).unwrap();
            let what = format!("{config:?} at {m} x {n} x {k}, {} {bias} {two}", b.dtype);
            let got = read(&c);
            compare(&what, &got, &expected, TOLERANCE);
            assert_eq!(first.get_or_insert(got.clone()).data, got.data, "{what}");
        }
    }
}

/// Compares every listed variant for B stored as `b` with the reference; interchangeable ones must be bit-identical.
fn check_every_variant(b: DType) {
    let Some(cx) = gpu_contexts().into_iter().next() else { return };
    let (cx, has_subgroups) = (&cx, cx.profile.subgroup > 0);
    let launched = record_launches(|| {
        for (bias, two) in [(false, false), (true, false), (false, true), (true, true)] {
            let all = Config::list(b, bias, two);
            for reads in AccessPatterns::list(b, bias || two) {
                let filter = |wanted: &dyn Fn(&Config) -> bool| -> Vec<Config> {
                    all.iter().copied().filter(wanted).collect()
                };
                let batch = if two { 1 } else { 2 };
                let tiles = filter(&|config| matches!(config, Config::Tile(_, r) if *r == reads));
                Problem::new(reads, [132, 140, 20], batch).run(cx, &tiles, b, bias, two);
                if two {
                    continue;
                }
                // Together with a tile, which has the same bits.
                let mut outer = filter(&|config| matches!(config, Config::Outer(r) if *r == reads));
                outer.extend(tiles.first());
                Problem::new(reads, [36, 36, 12], batch).run(cx, &outer, b, bias, two);
                for few in [1, 4, 8] {
                    let dots = filter(&|config| match config {
                        Config::Dots { rows, wide, subgroups } => {
                            let runs = !subgroups || cx.profile.subgroup > 0;
                            *rows == few && (!wide || reads == AccessPatterns::ALL[1]) && runs
                        }
                        _ => false,
                    });
                    if reads.b != Read::Lines {
                        let mut problem = Problem::new(reads, [1, 9, 276], batch);
                        problem.sizes[0] = few as usize;
                        problem.run(cx, &dots, b, bias, two);
                    }
                    let columns = filter(&|config| match config {
                        Config::Columns { rows, wide } => {
                            *rows == few && (!wide || reads == AccessPatterns::ALL[2])
                        }
                        _ => false,
                    });
                    if reads.b == Read::Lines && reads.a != Read::Lines {
                        let mut problem = Problem::new(reads, [1, 76, 300], batch);
                        problem.sizes[0] = few as usize;
                        problem.run(cx, &columns, b, bias, two);
                    }
                }
            }
        }
        // Partial sums are f32.
        if b == DType::F32 {
            check_split_sum(cx);
        }
    });
    assert_all(COVERED, &launched, |(_, variant)| {
        let parts = variant.params == [0; 4] && variant.threads == split::THREADS;
        let by_subgroups =
            !parts && matches!(Config::from_params(variant.params), Config::Dots { subgroups: true, .. });
        variant.dtypes[1] == b && (!by_subgroups || has_subgroups)
    });
}

/// The kernels whose variants these tests launch.
pub(crate) const COVERED: &[&Kernel] = KERNELS.split_at(KERNELS.len() - in_f16::KERNELS.len()).0;

/// A product with a split K, with and without bias.
fn check_split_sum(cx: &Rc<Context>) {
    let [m, n, k] = [33, 20, 512];
    let (a, b, bias) =
        (Array::random("a", &[m * k]), Array::random("b", &[k * n]), Array::random("bias", &[n]));
    let [left, right, added] = [&a, &b, &bias].map(|x| x.upload(cx));
    for bias_of in [None, Some(&added)] {
        let c = cx.empty([m, n], DType::F32).unwrap();
        let (left, right) = (Matrix::new(&left, k), Matrix::new(&right, n));
        gemm(cx, Gemm::new(m, n, k), left, right, bias_of, Matrix::new(&c, n)).unwrap();
        let expected = Array::from_fn(&[m, n], |i| {
            let own = if bias_of.is_some() { bias.data[i[1]] } else { 0.0 };
            sum_products(&a.data, &b.data, [m, n, k], [i[0], i[1]], [false; 2]) + own
        });
        compare("parts", &read(&c), &expected, TOLERANCE);
    }
}

#[test]
fn every_listed_f32_variant_is_launched_and_equals_the_reference() {
    check_every_variant(DType::F32);
}

#[test]
fn every_listed_f16_variant_is_launched_and_equals_the_reference() {
    check_every_variant(DType::F16);
}

#[test]
fn every_listed_bf16_variant_is_launched_and_equals_the_reference() {
    check_every_variant(DType::BF16);
}

/// K is split if C is small: each part is summed, then all parts, whole and in windows, for any offset of A.
#[test]
fn long_sums_are_split_along_k() {
    for (trans, [m, n, k]) in
        [([false, true], [33, 20, 512]), ([true, false], [16, 70, 530]), ([false, false], [9, 33, 777])]
    {
        let [trans_a, trans_b] = trans;
        let a = Array::random("a", &[5 + m * k]);
        let b = Array::random("b", &[k * n]);
        let (bias, c) = (Array::random("bias", &[n]), Array::random("c", &[m, n]));
        for with_bias in [true, false] {
            let expected = Array::from_fn(&[m, n], |i| {
                let product = sum_products(&a.data[5..], &b.data, [m, n, k], [i[0], i[1]], trans);
                let bias = if with_bias { bias.data[i[1]] } else { 0.0 };
                1.5 * product + bias + c.data[i[0] * n + i[1]]
            });
            for cx in contexts() {
                let (a, b, bias, c) = (a.upload(&cx), b.upload(&cx), bias.upload(&cx), c.upload(&cx));
                let a = a.sub_range(5, [m * k]);
                let left = Matrix::new(&a, if trans_a { m } else { k }).transposed_if(trans_a);
                let right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
                let g = Gemm::new(m, n, k).alpha(1.5).accumulate();
                let part = split::find_part(&g, &left, &right).expect("a product that is cut");
                cx.count_launches(true);
                gemm(&cx, g, left, right, with_bias.then_some(&bias), Matrix::new(&c, n)).unwrap();
                let launched = cx.count_launches(false);
                let what = format!("{m} x {n} x {k} by {part} on {}", cx.profile.label);
                compare(&what, &read(&c), &expected, TOLERANCE);
                let adds = launched.keys().any(|name| name.starts_with("gemm_parts"));
                assert_eq!(adds, cx.profile.kind == Kind::Gpu, "{what}: {launched:?}");
            }
        }
    }
}

/// A batch with its rows in one matrix is one product, with the bits of one.
#[test]
fn a_batch_that_shares_b_equals_one_product() {
    let (batch, [m, n, k]) = (3, [5, 20, 24]);
    let a = Array::random("a", &[batch, m, k]);
    let b = Array::random("b", &[n, k]);
    for cx in contexts() {
        let (a, b) = (a.upload(&cx), b.upload(&cx));
        let zero = |dims: [usize; 3]| -> Value { cx.empty(dims, DType::F32).unwrap() };
        let [batched, one] = [(); 2].map(|()| zero([batch, m, n]));
        let (left, right) = (Matrix::new(&a, k), Matrix::new(&b, k).t());
        let g = Gemm::new(m, n, k);
        gemm(
            &cx,
            g.batch(batch),
            left.with_batch_stride(m * k),
            right,
            None,
            Matrix::new(&batched, n).with_batch_stride(m * n),
        )
        .unwrap();
        gemm(&cx, Gemm::new(batch * m, n, k), left, right, None, Matrix::new(&one, n)).unwrap();
        if cx.profile.kind == Kind::Gpu {
            assert_eq!(read(&batched).data, read(&one).data, "on {}", cx.profile.label);
        }
    }
}

#[test]
fn two_segments_equal_two_products() {
    for (dtype, [m, n, k, r]) in
        [(DType::F32, [33, 66, 34, 6]), (DType::BF16, [18, 34, 20, 16]), (DType::F32, [17, 65, 21, 5])]
    {
        for trans_b in [true, false] {
            let a = Array::random("a", &[m, k]);
            let b = Array::random("b", &if trans_b { [n, k] } else { [k, n] }).stored(dtype);
            let a2 = Array::random("a2", &[m, r]);
            let b2 = Array::random("b2", &if trans_b { [n, r] } else { [r, n] });
            let (bias, c) = (Array::random("bias", &[n]), Array::random("c", &[m, n]));
            for with_bias in [true, false] {
                let expected = Array::from_fn(&[m, n], |i| {
                    let at = [i[0], i[1]];
                    let first = sum_products(&a.data, &b.data, [m, n, k], at, [false, trans_b]);
                    let second = sum_products(&a2.data, &b2.data, [m, n, r], at, [false, trans_b]);
                    let bias = if with_bias { bias.data[i[1]] } else { 0.0 };
                    1.5 * first + bias - 0.75 * second + c.data[i[0] * n + i[1]]
                });
                for cx in contexts() {
                    let (a, b, bias_of) = (a.upload(&cx), b.upload(&cx), bias.upload(&cx));
                    let (a2, b2) = (a2.upload(&cx), b2.upload(&cx));
                    let bias = with_bias.then_some(&bias_of);
                    let g = Gemm::new(m, n, k).alpha(1.5).accumulate();
                    let [right, right2] = [(&b, k), (&b2, r)].map(|(b, terms)| {
                        Matrix::new(b, if trans_b { terms } else { n }).transposed_if(trans_b)
                    });
                    let left = Matrix::new(&a, k);
                    let second = Segment { a: Matrix::new(&a2, r), b: right2, k: r, alpha: -0.75 };
                    let all =
                        list_configs(&cx, &g, &left, &right, &Matrix::new(&bias_of, n), [with_bias, true]);
                    for config in all {
                        let c = c.upload(&cx);
                        let out = Matrix::new(&c, n);
                        append(&cx, config, g, left, right, bias, Some(second), out).unwrap();
                        let what = format!("{config:?} at {m} x {n} x {k} + {r} on {}", cx.profile.label);
                        compare(&what, &read(&c), &expected, TOLERANCE);
                    }
                    let [joined, separate] = [(); 2].map(|()| c.upload(&cx));
                    let before = cx.launches();
                    gemm_with(&cx, g, left, right, bias, Some(second), Matrix::new(&joined, n)).unwrap();
                    let launches = cx.launches() - before;
                    gemm(&cx, g, left, right, bias, Matrix::new(&separate, n)).unwrap();
                    let more = Gemm::new(m, n, r).alpha(-0.75).accumulate();
                    gemm(&cx, more, second.a, second.b, None, Matrix::new(&separate, n)).unwrap();
                    let what = format!("{m} x {n} x {k} + {r} on {}", cx.profile.label);
                    assert_eq!(read(&joined).data, read(&separate).data, "{what}");
                    if cx.profile.binding_limit > 1 << 20 {
                        assert_eq!(launches, 1, "{what}");
                    }
                }
            }
        }
    }
}

/// Every variant for every block type has the bits of f32's.
#[test]
fn every_listed_quantised_variant_is_bit_identical_to_f32() {
    let Some(cx) = gpu_contexts().into_iter().next() else { return };
    let cx = &cx;
    let launched = record_launches(|| {
        for kind in BlockType::EVERY {
            for (bias, two) in [(false, false), (true, false), (false, true), (true, true)] {
                for reads in AccessPatterns::list(DType::Block(kind), bias || two) {
                    let few = if two || reads != AccessPatterns::ALL[1] { &[70][..] } else { &[1, 7, 70] };
                    few.iter().for_each(|m| compare_quantised_product(cx, kind, reads, *m, bias, two));
                }
            }
        }
    });
    // Other tests cover f32's variants, which are launched for comparison.
    let is_quantised =
        |(_, variant): &coverage::NamedVariant| variant.dtypes.get(1).is_some_and(|b| b.is_block());
    let launched = launched.into_iter().filter(is_quantised).collect();
    assert_all(COVERED, &launched, is_quantised);
}

fn compare_quantised_product(
    cx: &Rc<Context>,
    kind: BlockType,
    reads: AccessPatterns,
    m: usize,
    bias: bool,
    two: bool,
) {
    let trans = reads.b != Read::Lines;
    // Reads of single elements start at an unaligned element of A.
    let shift = if reads == AccessPatterns::ELEMENTS { 3 } else { 4 };
    let [n, k] = if trans { [37, 512] } else { [512, 36] };
    let blocks = draw_blocks(kind, n * k, 5);
    let values = unpack_all(kind, &blocks);
    let shape = if trans { [n, k] } else { [k, n] };
    let stored = cx.upload(shape, DType::Block(kind), blocks).unwrap();
    let wide = cx.upload(shape, DType::F32, bytemuck::cast_slice(&values).to_vec()).unwrap();
    let a = Array::random("a", &[shift + m * k]).upload(cx).sub_range(shift, [m * k]);
    let (bias_of, c) = (Array::random("bias", &[n]).upload(cx), Array::random("c", &[m, n]));
    let (a2, b2) = (Array::random("a2", &[m, 6]).upload(cx), Array::random("b2", &[n, 6]).upload(cx));
    let second = Segment { a: Matrix::new(&a2, 6), b: Matrix::new(&b2, 6).t(), k: 6, alpha: -0.75 };
    let g = Gemm::new(m, n, k).alpha(1.5).accumulate();
    let left = Matrix::new(&a, k);
    let right = |b| Matrix::new(b, shape[1]).transposed_if(trans);
    assert_eq!(AccessPatterns::choose(&g, &left, &right(&stored), bias || two), reads, "{kind}");
    let config =
        list_candidates(&g, &left, &right(&stored), &Matrix::new(&bias_of, n), [bias, two], false)[0];
    let run_with = |b| {
        let c = c.upload(cx);
        let (bias, second) = (bias.then_some(&bias_of), two.then_some(second));
        append(cx, config, g, left, right(b), bias, second, Matrix::new(&c, n)).unwrap();
        read(&c).data
    };
    assert_eq!(run_with(&stored), run_with(&wide), "{kind} {config:?} {bias} {two}");
}
