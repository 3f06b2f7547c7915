mod coded;
mod rounded;
mod tiles;

use std::cell::RefCell;
use std::collections::HashMap;

use half::{bf16, f16};

use super::cache_line::{ALIASING_STRIDE, LINE, choose_leading_dimension};
use super::product::{Product, SecondSegment};
use super::quantised::{BlockPointer, Blocks};
use super::table::{self, KernelTable, Storage};
use crate::quant::BlockType;
use crate::testing::{draw_blocks, hash_values, unpack_all};
use crate::threads::Threads;

struct Case {
    sizes: [usize; 4],
    trans_a: bool,
    trans_b: bool,
    alpha: f32,
    accumulate: bool,
    bias: bool,
}

thread_local!(static DRAWN: RefCell<HashMap<String, Vec<f32>>> = RefCell::default());

/// Returns pseudo-random numbers by name and index: a shorter list is a prefix of a longer one. Each is generated once.
fn draw_values(name: &str, size: usize) -> Vec<f32> {
    DRAWN.with_borrow_mut(|drawn| {
        let drawn = drawn.entry(name.into()).or_default();
        if drawn.len() < size {
            *drawn = hash_values(name, size).iter().map(|v| *v as f32).collect();
        }
        drawn[..size].to_vec()
    })
}

impl Case {
    fn a(&self) -> Vec<f32> {
        let [batch, m, _, k] = self.sizes;
        draw_values("a", batch * m * k)
    }
}

/// Returns C, computed on a pool of `threads`.
fn run<T>(table: &'static KernelTable, threads: usize, case: &Case, narrow: impl Fn(f32) -> T) -> Vec<f32>
where
    T: Storage<Position = *const T>,
{
    // SAFETY: `run_with` creates operands that cover the case.
    run_with(table, threads, case, &case.a(), narrow, |p, table, threads| unsafe { p.run(table, threads) })
}

fn run_with<T: Storage<Position = *const T>>(
    table: &'static KernelTable,
    threads: usize,
    case: &Case,
    a: &[f32],
    narrow: impl Fn(f32) -> T,
    run: impl Fn(&Product<T>, &'static KernelTable, usize) + Sync,
) -> Vec<f32> {
    let [_, _, n, k] = case.sizes;
    let b: Vec<T> = draw_values("b", k * n).into_iter().map(narrow).collect();
    run_on_weight(table, threads, case, a, b.as_ptr(), run)
}

fn run_on_weight<T: Storage>(
    table: &'static KernelTable,
    threads: usize,
    case: &Case,
    a: &[f32],
    b: T::Position,
    run: impl Fn(&Product<T>, &'static KernelTable, usize) + Sync,
) -> Vec<f32> {
    let [batch, m, n, _] = case.sizes;
    let (bias, mut c) = (draw_values("bias", n), draw_values("c", batch * m * n));
    let product = make_product(case, a, b, &bias, &mut c);
    Threads::new(threads).unwrap().install(|| run(&product, table, threads));
    c
}

fn make_product<T: Storage>(
    case: &Case,
    a: &[f32],
    b: T::Position,
    bias: &[f32],
    c: &mut [f32],
) -> Product<T> {
    let [batch, m, n, k] = case.sizes;
    let (a_row, a_column) = if case.trans_a { (1, m) } else { (k, 1) };
    let (b_row, b_column) = if case.trans_b { (1, k) } else { (n, 1) };
    Product {
        batch,
        m,
        n,
        k,
        a: a.as_ptr(),
        a_batch: m * k,
        a_row,
        a_column,
        b,
        b_batch: 0,
        b_row,
        b_column,
        c: c.as_mut_ptr(),
        c_batch: m * n,
        c_row: n,
        alpha: case.alpha,
        accumulate: case.accumulate,
        bias: if case.bias { bias.as_ptr() } else { std::ptr::null() },
        second: None,
    }
}

/// Returns C in f64.
fn compute_reference(case: &Case, a: &[f32], narrow: impl Fn(f32) -> f32) -> Vec<f64> {
    let [_, _, n, k] = case.sizes;
    let b: Vec<f32> = draw_values("b", k * n).into_iter().map(narrow).collect();
    compute_reference_on_weight(case, a, &b)
}

fn compute_reference_on_weight(case: &Case, a: &[f32], b: &[f32]) -> Vec<f64> {
    let [batch, m, n, k] = case.sizes;
    let (bias, c) = (draw_values("bias", n), draw_values("c", batch * m * n));
    let mut out = Vec::new();
    for z in 0..batch {
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k)
                    .map(|t| {
                        let a = a[z * m * k + if case.trans_a { t * m + i } else { i * k + t }];
                        a as f64 * b[if case.trans_b { j * k + t } else { t * n + j }] as f64
                    })
                    .sum();
                let mut v = case.alpha as f64 * sum;
                v += if case.bias { bias[j] as f64 } else { 0.0 };
                v += if case.accumulate { c[(z * m + i) * n + j] as f64 } else { 0.0 };
                out.push(v);
            }
        }
    }
    out
}

fn list_cases() -> Vec<Case> {
    // Sizes around the ends of tiles (12, 6, 16 and 32 rows; 32, 16 and 8 columns), of squares (16, 8 and 4 terms), of
    // dot products (8 rows, 4 columns) and of the parts of K, also for few rows or columns; rows that alias in L1, and
    // more rows than one pass has.
    let sizes = [
        [1, 1, 1, 1],
        [1, 1, 5, 33],
        [2, 3, 70, 17],
        [1, 8, 9, 64],
        [1, 9, 8, 16],
        [2, 13, 33, 31],
        [1, 25, 65, 48],
        [3, 12, 32, 16],
        [1, 50, 17, 1025],
        [1, 200, 150, 65],
        [1, 6, 257, 2100],
        [1, 37, 70, 2077],
        [2, 29, 70, 2048],
        [1, 110, 70, 1100],
        [1, 33, 16, 513],
        [2, 16, 47, 32],
        [1, 270, 40, 550],
        [1, 531, 288, 131],
        [1, 16, 300, 700],
        [1, 300, 16, 700],
    ];
    let mut cases = Vec::new();
    for (i, sizes) in sizes.into_iter().enumerate() {
        for flags in 0..4 {
            cases.push(Case {
                sizes,
                trans_a: flags & 1 == 1,
                trans_b: flags & 2 == 2,
                alpha: if i % 2 == 0 { 1.0 } else { -1.5 },
                accumulate: i % 3 == 0,
                bias: i % 2 == 1,
            });
        }
    }
    cases
}

fn assert_close(table: &KernelTable, got: &[f32], expected: &[f64], case: &Case) {
    // The rounding errors of k terms in (-1, 1) add up to about √k half-ulps of sums below √k.
    let tolerance = 1e-6 * (case.sizes[3] as f64).max(1.0).sqrt() * 4.0;
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((*a as f64 - b).abs() <= tolerance, "{} {:?} at {i}: {a} for {b}", table.name, case.sizes);
    }
}

#[test]
fn every_instruction_set_equals_the_reference() {
    for table in table::available_tables() {
        for case in list_cases() {
            assert_close(
                table,
                &run(table, 2, &case, |v| v),
                &compute_reference(&case, &case.a(), |v| v),
                &case,
            );
            let expected = compute_reference(&case, &case.a(), |v| f16::from_f32(v).to_f32());
            assert_close(table, &run(table, 2, &case, f16::from_f32), &expected, &case);
            let expected = compute_reference(&case, &case.a(), |v| bf16::from_f32(v).to_f32());
            assert_close(table, &run(table, 2, &case, bf16::from_f32), &expected, &case);
        }
    }
}

#[test]
fn the_thread_count_does_not_change_the_bits() {
    for table in table::available_tables() {
        for case in list_cases() {
            let one = run(table, 1, &case, |v| v);
            for threads in [2, 3, 7] {
                assert!(one == run(table, threads, &case, |v| v), "{} {:?}", table.name, case.sizes);
            }
        }
    }
}

#[test]
fn leading_dimensions_never_alias_in_l1() {
    for elements in 1..5000 {
        let row = choose_leading_dimension(elements);
        assert!(
            row >= elements && row.is_multiple_of(LINE) && !row.is_multiple_of(ALIASING_STRIDE),
            "{elements}: {row}"
        );
    }
}

/// Returns a second segment of 16 terms.
fn make_second_segment(a: &[f32], b: &[f32]) -> SecondSegment {
    let (a, b) = (a.as_ptr(), b.as_ptr());
    SecondSegment { k: 16, a, a_row: 16, a_column: 1, b, b_row: 1, b_column: 16, alpha: 0.75 }
}

/// Compares rows that alias in L1 with the same rows at a stride of one more cache line; factors as in forward and
/// backward, with a second segment.
#[test]
fn copied_rows_give_the_bits_of_rows_in_place() {
    let n = 576;
    for table in table::available_tables() {
        for (m, k, trans_b) in [(13, 2048, true), (70, 3072, false), (150, 2048, false), (300, 1024, true)] {
            let case = Case {
                sizes: [1, m, n, k],
                trans_a: false,
                trans_b,
                alpha: 1.0,
                accumulate: true,
                bias: true,
            };
            let (a2, b2) = (draw_values("a2", m * 16), draw_values("b2", n * 16));
            let (a, ld) = (case.a(), k + 16);
            let mut wide = vec![f32::NAN; m * ld];
            for (from, to) in a.chunks(k).zip(wide.chunks_mut(ld)) {
                to[..k].copy_from_slice(from);
            }
            let run_rows = |a: &[f32], a_row: usize, rows: Option<usize>| {
                let run = |p: &Product<f32>, table: &'static KernelTable, threads: usize| {
                    let p = Product { a_row, second: Some(make_second_segment(&a2, &b2)), ..*p };
                    // SAFETY: the operands cover the case at this row stride.
                    unsafe {
                        match rows {
                            Some(rows) => p.run_with_copied_a(table, super::blocking(), rows, threads),
                            None => p.run(table, threads),
                        }
                    }
                };
                run_with(table, 2, &case, a, |v| v, run)
            };
            let expected = run_rows(&wide, ld, None);
            // All rows in one pass, and several passes.
            for rows in [None, Some(37)] {
                assert!(run_rows(&a, k, rows) == expected, "{} {m} × {n} × {k} by {rows:?}", table.name);
            }
        }
    }
}

fn round_to_bf16(v: f32) -> f32 {
    bf16::from_f32(v).to_f32()
}

/// Returns C after a product and a second segment of `k` terms: in one call and in two.
fn run_joined_and_separate<T: Storage<Position = *const T>>(
    table: &'static KernelTable,
    case: &Case,
    (k, trans_b): (usize, bool),
    narrow: impl Fn(f32) -> T,
    run: unsafe fn(&Product<T>, &'static KernelTable, usize),
) -> [Vec<f32>; 2] {
    let [_, m, n, _] = case.sizes;
    let (a, b) = (draw_values("a2", m * k), draw_values("b2", k * n));
    let (b_row, b_column) = if trans_b { (1, k) } else { (n, 1) };
    let second = SecondSegment {
        k,
        a: a.as_ptr(),
        a_row: k,
        a_column: 1,
        b: b.as_ptr(),
        b_row,
        b_column,
        alpha: 0.75,
    };
    // SAFETY: `run_with` creates operands that cover the case.
    let both = move |product: &Product<T>, table, threads| unsafe {
        run(&Product { second: Some(second), ..*product }, table, threads)
    };
    // SAFETY: `run_with` creates operands that cover the case.
    let separate = move |product: &Product<T>, table, threads| unsafe {
        run(product, table, threads);
        let alone =
            Product { second: Some(second), ..*product }.split_second(true).expect("it has a second").1;
        alone.run(table, threads);
    };
    [
        run_with(table, 3, case, &case.a(), &narrow, both),
        run_with(table, 2, case, &case.a(), &narrow, separate),
    ]
}

#[test]
fn a_second_segment_gives_the_bits_of_a_separate_product() {
    for table in table::available_tables() {
        for case in list_cases().iter().filter(|case| case.sizes[0] == 1) {
            for k in [1, 6, 16, 1500] {
                for trans_b in [false, true] {
                    let segment = (k, trans_b);
                    let what = format!("{} {:?} + {k}", table.name, case.sizes);
                    let check = |[joined, separate]: [Vec<f32>; 2]| assert!(joined == separate, "{what}");
                    check(run_joined_and_separate(table, case, segment, |v| v, Product::run));
                    check(run_joined_and_separate(table, case, segment, bf16::from_f32, Product::run));
                    check(run_joined_and_separate(
                        table,
                        case,
                        segment,
                        bf16::from_f32,
                        Product::run_rounded,
                    ));
                }
            }
        }
    }
}

/// Returns cases with whole blocks of 256 in B, along k or along n.
fn list_block_cases() -> Vec<Case> {
    let sizes = [
        [1, 1, 1, 256],
        [1, 1, 70, 512],
        [1, 2, 33, 768],
        [1, 3, 65, 256],
        [1, 4, 9, 1280],
        [2, 7, 31, 256],
        [1, 9, 37, 512],
        [1, 50, 131, 1280],
        [1, 110, 70, 768],
        [1, 200, 33, 2304],
        [1, 300, 288, 768],
        // Sizes with a remainder after whole turns of one row's chains.
        [1, 1, 5, 32],
        [1, 1, 5, 64],
        [1, 1, 5, 96],
        [1, 1, 67, 224],
        [1, 1, 9, 576],
        [1, 3, 5, 96],
    ];
    let mut cases = Vec::new();
    for (i, [batch, m, other, blocks]) in sizes.into_iter().enumerate() {
        for trans_b in [false, true] {
            let (n, k) = if trans_b { (other, blocks) } else { (blocks, other) };
            let (alpha, bias) = (if i % 2 == 0 { 1.0 } else { -1.5 }, i % 2 == 1);
            cases.push(Case {
                sizes: [batch, m, n, k],
                trans_a: false,
                trans_b,
                alpha,
                accumulate: i % 3 == 0,
                bias,
            });
        }
    }
    cases
}

/// Rows that end within a superblock are unpacked.
#[test]
fn rows_that_end_within_a_superblock_are_multiplied_correctly() {
    let (n, row, k) = (5, 512, 288);
    let case = Case {
        sizes: [1, 1, n, k],
        trans_a: false,
        trans_b: true,
        alpha: 1.0,
        accumulate: false,
        bias: false,
    };
    for table in table::available_tables() {
        for kind in BlockType::EVERY {
            let blocks = draw_blocks(kind, n * row, 13);
            let b = unpack_all(kind, &blocks);
            let pointer = BlockPointer::new(kind, table.level, blocks.as_ptr());
            assert_eq!(
                pointer.find_arrangement(k, row).is_some(),
                kind.elements() == 32 && pointer.find_arrangement(row, row).is_some()
            );
            // SAFETY: the weight covers N rows with K terms.
            let expected = run_on_weight::<f32>(table, 2, &case, &case.a(), b.as_ptr(), |p, l, t| unsafe {
                Product { b_column: row, ..*p }.run(l, t)
            });
            // SAFETY: as above.
            let got = run_on_weight::<Blocks>(table, 2, &case, &case.a(), pointer, |p, l, t| unsafe {
                Product { b_column: row, ..*p }.run(l, t)
            });
            let part: Vec<f32> = b.chunks(row).flat_map(|row| &row[..k]).copied().collect();
            match pointer.find_arrangement(k, row) {
                Some(_) => assert_close_without_unpacking(&case, kind, &part, &got, kind.as_str()),
                None => assert!(got == expected, "{kind} {}", table.name),
            }
        }
    }
}

/// Checks one row times packed blocks. Scales multiply sums of codes before their offset is subtracted, so terms are up
/// to about four times the block's largest element. The rounding errors of k terms add up to about √k half-ulps of
/// their sums, which are about √k terms.
fn assert_close_without_unpacking(case: &Case, kind: BlockType, b: &[f32], got: &[f32], what: &str) {
    let [_, _, _, k] = case.sizes;
    let a = case.a();
    let expected = compute_reference_on_weight(case, &a, b);
    for (j, (column, got)) in b.chunks(k).zip(got).enumerate() {
        let measure_block = |(a, b): (&[f32], &[f32])| {
            let largest = b.iter().fold(0f64, |most, v| most.max(v.abs() as f64));
            a.iter().map(|a| (4.0 * largest * *a as f64).powi(2)).sum::<f64>()
        };
        let blocks = a.chunks(kind.elements()).zip(column.chunks(kind.elements()));
        let sums = blocks.map(measure_block).sum::<f64>().sqrt() * case.alpha.abs() as f64;
        let tolerance = f32::EPSILON as f64 * ((k as f64).sqrt() * sums + 4.0);
        let error = (*got as f64 - expected[j]).abs();
        assert!(error <= tolerance, "{what} at {j}: {got} for {}, {error:e} of {tolerance:e}", expected[j]);
    }
}

/// A weight in blocks gives the bits of the same weight in f32, since it is summed in the same order. For one row,
/// packed blocks are summed in another order.
#[test]
fn products_of_blocks_equal_products_of_unpacked_weights() {
    for table in table::available_tables() {
        for kind in BlockType::EVERY {
            for case in list_block_cases() {
                let [_, _, n, k] = case.sizes;
                if !(if case.trans_b { k } else { n }).is_multiple_of(kind.elements()) {
                    continue;
                }
                let blocks = draw_blocks(kind, n * k, 11);
                let b = unpack_all(kind, &blocks);
                let run = |b: *const f32| {
                    // SAFETY: the weight covers K and N.
                    run_on_weight::<f32>(table, 2, &case, &case.a(), b, |p, l, n| unsafe { p.run(l, n) })
                };
                let expected = run(b.as_ptr());
                let pointer = BlockPointer::new(kind, table.level, blocks.as_ptr());
                for threads in [1, 3] {
                    // SAFETY: as above.
                    let got = run_on_weight::<Blocks>(
                        table,
                        threads,
                        &case,
                        &case.a(),
                        pointer,
                        |p, l, n| unsafe { p.run(l, n) },
                    );
                    let what = format!("{kind} {} {:?}", table.name, case.sizes);
                    if case.sizes[1] == 1 && case.trans_b && pointer.find_arrangement(k, k).is_some() {
                        assert_close_without_unpacking(&case, kind, &b, &got, &what);
                    } else {
                        assert!(got == expected, "{what}");
                    }
                }
            }
        }
    }
}
