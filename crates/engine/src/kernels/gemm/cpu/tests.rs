use half::{bf16, f16};

use super::isa::{self, Isa, Stored};
use super::product::Product;
use crate::ops::checks::Array;

struct Case {
    sizes: [usize; 4],
    trans_a: bool,
    trans_b: bool,
    alpha: f32,
    accumulate: bool,
    bias: bool,
}

fn values(name: &str, size: usize) -> Vec<f32> {
    Array::random(name, &[size]).data.iter().map(|v| *v as f32).collect()
}

/// C on a pool of `threads`.
fn run<T: Stored>(isa: &'static Isa, threads: usize, case: &Case, narrow: impl Fn(f32) -> T) -> Vec<f32> {
    let [batch, m, n, k] = case.sizes;
    let a = values("a", batch * m * k);
    let b: Vec<T> = values("b", k * n).into_iter().map(narrow).collect();
    let (bias, mut c) = (values("bias", n), values("c", batch * m * n));
    let (a_row, a_column) = if case.trans_a { (1, m) } else { (k, 1) };
    let (b_row, b_column) = if case.trans_b { (1, k) } else { (n, 1) };
    let product = Product {
        batch,
        m,
        n,
        k,
        a: a.as_ptr(),
        a_batch: m * k,
        a_row,
        a_column,
        b: b.as_ptr(),
        b_batch: 0,
        b_row,
        b_column,
        c: c.as_mut_ptr(),
        c_batch: m * n,
        c_row: n,
        alpha: case.alpha,
        accumulate: case.accumulate,
        bias: if case.bias { bias.as_ptr() } else { std::ptr::null() },
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| unsafe { product.run(isa, threads) });
    c
}

/// C in f64.
fn plain(case: &Case, narrow: impl Fn(f32) -> f32) -> Vec<f64> {
    let [batch, m, n, k] = case.sizes;
    let (a, b) = (values("a", batch * m * k), values("b", k * n));
    let (bias, c) = (values("bias", n), values("c", batch * m * n));
    let mut out = Vec::new();
    for z in 0..batch {
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k)
                    .map(|t| {
                        let a = a[z * m * k + if case.trans_a { t * m + i } else { i * k + t }];
                        a as f64 * narrow(b[if case.trans_b { j * k + t } else { t * n + j }]) as f64
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

fn cases() -> Vec<Case> {
    // Around the ends of tiles (12 and 6 rows; 32, 16 and 8 columns), of squares (16, 8 and 4 terms),
    // of dot products (8 rows, 4 columns), and of the parts of K.
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

fn held(isa: &Isa, got: &[f32], expected: &[f64], case: &Case) {
    // Rounding errors of k terms in (-1, 1) add up to some √k halves of an ulp of sums below √k.
    let tolerance = 1e-6 * (case.sizes[3] as f64).max(1.0).sqrt() * 4.0;
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((*a as f64 - b).abs() <= tolerance, "{} {:?} at {i}: {a} for {b}", isa.name, case.sizes);
    }
}

#[test]
fn every_instruction_set_equals_the_plain_form() {
    for isa in isa::available() {
        for case in cases() {
            held(isa, &run(isa, 2, &case, |v| v), &plain(&case, |v| v), &case);
            let expected = plain(&case, |v| f16::from_f32(v).to_f32());
            held(isa, &run(isa, 2, &case, f16::from_f32), &expected, &case);
            let expected = plain(&case, |v| bf16::from_f32(v).to_f32());
            held(isa, &run(isa, 2, &case, bf16::from_f32), &expected, &case);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for isa in isa::available() {
        for case in cases() {
            let one = run(isa, 1, &case, |v| v);
            for threads in [2, 3, 7] {
                assert!(one == run(isa, threads, &case, |v| v), "{} {:?}", isa.name, case.sizes);
            }
        }
    }
}
