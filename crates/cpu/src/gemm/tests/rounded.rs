//! Products with bf16 that round the other factor to bf16.

use half::bf16;

use super::super::arguments::MAX_GEMV_ROWS;
use super::*;

/// Like `run`, with A rounded to bf16.
fn run_rounded(table: &'static KernelTable, threads: usize, case: &Case, a: &[f32]) -> Vec<f32> {
    // SAFETY: `run_with` creates operands that cover the case.
    run_with(table, threads, case, a, bf16::from_f32, |p, table, threads| unsafe {
        p.run_rounded(table, threads)
    })
}

/// Returns cases with more terms and more rows than one rounding pass has.
fn list_large_cases() -> impl Iterator<Item = Case> {
    let sizes = [[1, 40, 35, 4700], [2, 2500, 1, 4700], [1, 1300, 3, 4800]];
    sizes.into_iter().enumerate().map(|(i, sizes)| Case {
        sizes,
        trans_a: i == 1,
        trans_b: i != 2,
        alpha: if i == 0 { -1.5 } else { 1.0 },
        accumulate: i == 0,
        bias: i != 1,
    })
}

/// Returns cases with more rows than one pass over B has.
fn list_rounded_cases() -> impl Iterator<Item = Case> {
    list_cases().into_iter().chain(list_large_cases()).filter(|case| case.sizes[1] > MAX_GEMV_ROWS)
}

#[test]
fn a_second_segment_is_added_once_when_k_is_split() {
    for table in table::available_tables() {
        for case in list_large_cases().filter(|case| case.sizes[0] == 1) {
            let [joined, separate] =
                run_joined_and_separate(table, &case, (16, false), bf16::from_f32, Product::run_rounded);
            assert!(joined == separate, "{} {:?}", table.name, case.sizes);
        }
    }
}

#[test]
fn both_factors_are_rounded_to_bf16() {
    for table in table::available_tables() {
        for case in list_rounded_cases() {
            let a: Vec<f32> = case.a().into_iter().map(round_to_bf16).collect();
            assert_close(
                table,
                &run_rounded(table, 2, &case, &case.a()),
                &compute_reference(&case, &a, round_to_bf16),
                &case,
            );
        }
    }
}

/// Returns a sum of rounded products in the order of bf16 tiles: of each 32 terms first the even ones, then the odd
/// ones, then both sums together, and so on through a segment of K.
#[cfg(target_arch = "x86_64")]
fn sum_in_tile_order(case: &Case, a: &[f32]) -> Vec<f32> {
    let [batch, m, n, k] = case.sizes;
    let (b, bias, mut c) = (draw_values("b", k * n), draw_values("bias", n), draw_values("c", batch * m * n));
    let part = k.div_ceil(k.div_ceil(288)).next_multiple_of(32);
    let segment = 4608 / part * part;
    for (at, c) in c.iter_mut().enumerate() {
        let (z, i, j) = (at / (m * n), at / n % m, at % n);
        let left = |t: usize| a[z * m * k + if case.trans_a { t * m + i } else { i * k + t }];
        let right = |t: usize| b[if case.trans_b { j * k + t } else { t * n + j }];
        for from in (0..k).step_by(segment) {
            let end = k.min(from + segment);
            let mut sum = 0f32;
            for from in (from..end).step_by(32) {
                let mut parity = [0f32; 2];
                for t in from..end.min(from + 32) {
                    parity[t % 2] = round_to_bf16(left(t)).mul_add(round_to_bf16(right(t)), parity[t % 2]);
                }
                sum += parity[0] + parity[1];
            }
            let mut v = case.alpha * sum;
            v += if case.bias && from == 0 { bias[j] } else { 0.0 };
            v += if case.accumulate || from > 0 { *c } else { 0.0 };
            *c = v;
        }
    }
    c
}

#[test]
#[cfg(target_arch = "x86_64")]
fn amx_tiles_sum_terms_in_the_documented_order() {
    for table in table::available_tables().iter().filter(|table| table.name == "amx") {
        for case in list_rounded_cases() {
            let expected = sum_in_tile_order(&case, &case.a());
            let got = run_rounded(table, 3, &case, &case.a());
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!(got == expected, "{:?} at {at}: {got} for {expected}", case.sizes);
            }
        }
    }
}

/// Leftover values in a thread's workspace do not affect the next product.
#[test]
fn leftover_workspace_values_do_not_affect_the_next_product() {
    for table in table::available_tables() {
        let case =
            |sizes| Case { sizes, trans_a: false, trans_b: true, alpha: 1.0, accumulate: false, bias: false };
        let (full, odd) = (case([1, 96, 64, 512]), case([1, 41, 39, 77]));
        let a = vec![f32::NAN; 96 * 512];
        let alone = run_rounded(table, 1, &odd, &odd.a());
        Threads::new(1).unwrap().install(|| {
            assert!(run_on_this_thread(table, &full, &a).iter().all(|v| v.is_nan()), "{}", table.name);
            assert!(run_on_this_thread(table, &odd, &odd.a()) == alone, "{}", table.name);
        });
    }
}

/// Otherwise each switch to another thread would save them.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn tile_registers_are_released_after_a_product() {
    for table in table::available_tables() {
        let sizes = [1, 41, 39, 77];
        let case = Case { sizes, trans_a: false, trans_b: true, alpha: 1.0, accumulate: false, bias: false };
        Threads::new(1).unwrap().install(|| {
            run_on_this_thread(table, &case, &case.a());
            assert!(!crate::simd::amx::emulated::is_in_use(), "{}", table.name);
        });
    }
}

/// Like `run_rounded`, on the calling thread's pool.
fn run_on_this_thread(table: &'static KernelTable, case: &Case, a: &[f32]) -> Vec<f32> {
    let b: Vec<bf16> =
        draw_values("b", case.sizes[3] * case.sizes[2]).into_iter().map(bf16::from_f32).collect();
    let mut c = draw_values("c", case.sizes[1] * case.sizes[2]);
    // SAFETY: the operands cover the case.
    unsafe { make_product(case, a, b.as_ptr(), &[], &mut c).run_rounded(table, 1) };
    c
}

/// The gaps between C's rows and after the last are not written.
#[test]
fn the_gaps_between_rows_of_c_are_not_written() {
    for table in table::available_tables() {
        for case in list_cases().iter().filter(|case| case.sizes[0] == 1) {
            let [_, m, n, k] = case.sizes;
            let b: Vec<bf16> = draw_values("b", k * n).into_iter().map(bf16::from_f32).collect();
            let (a, bias, c_row) = (case.a(), draw_values("bias", n), n + 3);
            let mut c = vec![7.25; (m + 40) * c_row];
            Threads::new(2).unwrap().install(|| {
                let product = make_product(case, &a, b.as_ptr(), &bias, &mut c);
                // SAFETY: the operands cover the case.
                unsafe { Product { c_row, ..product }.run_rounded(table, 2) };
            });
            let beside = c.iter().enumerate().filter(|(at, _)| at / c_row >= m || at % c_row >= n);
            assert!(beside.into_iter().all(|(_, v)| *v == 7.25), "{} {:?}", table.name, case.sizes);
        }
    }
}

#[test]
fn few_rows_are_not_rounded() {
    for table in table::available_tables() {
        for case in list_cases().iter().filter(|case| case.sizes[1] <= MAX_GEMV_ROWS) {
            assert!(run_rounded(table, 2, case, &case.a()) == run(table, 2, case, bf16::from_f32));
        }
    }
}

#[test]
fn the_thread_count_does_not_change_rounded_products() {
    for table in table::available_tables() {
        for case in list_rounded_cases() {
            let one = run_rounded(table, 1, &case, &case.a());
            for threads in [2, 3, 7] {
                assert!(
                    one == run_rounded(table, threads, &case, &case.a()),
                    "{} {:?}",
                    table.name,
                    case.sizes
                );
            }
        }
    }
}

#[test]
fn non_finite_values_stay_in_their_rows() {
    for table in table::available_tables() {
        // The last is closer to infinity than to the largest bf16.
        for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.4e38] {
            for case in list_rounded_cases() {
                let [_, m, n, k] = case.sizes;
                let mut a = case.a();
                let at = a.len() / 2;
                a[at] = v;
                let got = run_rounded(table, 2, &case, &a);
                let (z, at) = (at / (m * k), at % (m * k));
                let row = if case.trans_a { at % m } else { at / k };
                let left = |t: usize| a[z * m * k + if case.trans_a { t * m + row } else { row * k + t }];
                let alone = Case { sizes: [1, 1, n, k], trans_a: false, ..case };
                let expected = compute_reference(
                    &alone,
                    &(0..k).map(|t| round_to_bf16(left(t))).collect::<Vec<_>>(),
                    round_to_bf16,
                );
                for (i, got) in got.iter().enumerate() {
                    let expected = if i / n == z * m + row { expected[i % n] } else { 0.0 };
                    let same = match expected.is_finite() {
                        true => got.is_finite(),
                        false => *got as f64 == expected || got.is_nan() && expected.is_nan(),
                    };
                    assert!(same, "{} {:?} {v} at {i}: {got} for {expected}", table.name, case.sizes);
                }
            }
        }
    }
}
