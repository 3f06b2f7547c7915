//! Measures this machine's peak rates: for each line on stdin, prints a line of JSON with f32 rates.
//!
//!     race-rates MxNxK…

mod peaks;

use std::io::BufRead;
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Minimum arithmetic per turn: a product is repeated until a turn is long enough to measure.
const LEAST: f64 = 4e10;

fn main() {
    let shapes: Vec<[usize; 3]> = std::env::args().skip(1).map(|shape| parse(&shape)).collect();
    turn(&shapes);
    println!("{{\"ready\": true}}");
    for line in std::io::stdin().lock().lines() {
        line.expect("a line");
        println!("{}", turn(&shapes));
    }
}

fn parse(shape: &str) -> [usize; 3] {
    let sizes: Vec<usize> = shape.split('x').map(|n| n.parse().expect("a shape is MxNxK")).collect();
    sizes.try_into().expect("a shape is MxNxK")
}

fn turn(shapes: &[[usize; 3]]) -> String {
    let mut rates =
        vec![format!("\"fma\": {}", peaks::multiply_adds()), format!("\"memory\": {}", peaks::reading())];
    for &[m, n, k] in shapes {
        let (a, b, mut c) = (vec![0.5f32; m * k], vec![0.25f32; n * k], vec![0f32; m * n]);
        let threads = rayon::current_num_threads();
        let of_gemm = rate([m, n, k], || with_gemm([m, n, k], &a, &b, &mut c, threads));
        let of_faer = rate([m, n, k], || with_faer([m, n, k], &a, &b, &mut c, threads));
        rates.push(format!("\"gemm {m}x{n}x{k}\": {of_gemm}"));
        rates.push(format!("\"faer {m}x{n}x{k}\": {of_faer}"));
    }
    format!("{{\"ms\": 0, \"peakMiB\": null, \"rates\": {{{}}}}}", rates.join(", "))
}

/// Returns GFLOP/s.
fn rate([m, n, k]: [usize; 3], mut product: impl FnMut()) -> f64 {
    let flops = 2.0 * (m * n * k) as f64;
    let times = (LEAST / flops).ceil().clamp(1.0, 50.0);
    product();
    let start = Instant::now();
    (0..times as usize).for_each(|_| product());
    times * flops / start.elapsed().as_secs_f64() / 1e9
}

/// C = A·Bᵀ, all row-major, as in a linear layer.
fn with_gemm([m, n, k]: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], threads: usize) {
    let (ni, ki) = (n as isize, k as isize);
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            ni,
            false,
            a.as_ptr(),
            1,
            ki,
            b.as_ptr(),
            ki,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(threads),
        );
    }
}

fn with_faer([m, n, k]: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], threads: usize) {
    let (a, b) = (MatRef::from_row_major_slice(a, m, k), MatRef::from_row_major_slice(b, n, k));
    let c = MatMut::from_row_major_slice_mut(c, m, n);
    matmul(c, Accum::Replace, a, b.transpose(), 1.0f32, Par::rayon(threads));
}
