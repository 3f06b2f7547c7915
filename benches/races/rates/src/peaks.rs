//! Multiply-adds that touch no memory, and memory that is only read, on all threads.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

/// So many that the system has spread the threads over the cores.
const ROUNDS: usize = 40_000_000;
/// Accumulators, so that no multiply-add waits for the one before it.
const LANES: usize = 16;
/// Floats that fit no cache: 256 MiB.
const LENGTH: usize = 64 << 20;

/// GFLOP/s.
pub fn multiply_adds() -> f64 {
    let turn = || {
        let start = Instant::now();
        let flops: usize = rayon::broadcast(|_| spin()).iter().sum();
        flops as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    // A thread that has just been woken is slower for a while.
    (0..3).map(|_| turn()).fold(0.0, f64::max)
}

#[cfg(target_arch = "x86_64")]
fn spin() -> usize {
    if std::arch::is_x86_feature_detected!("avx512f") {
        return unsafe { with_avx512() };
    }
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        return unsafe { with_avx2() };
    }
    plain()
}

#[cfg(not(target_arch = "x86_64"))]
fn spin() -> usize {
    plain()
}

/// What the compiler makes of it: NEON on aarch64.
fn plain() -> usize {
    let (a, b) = (black_box(0.999f32), black_box(0.001f32));
    let mut sums = [[1f32; 4]; LANES];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            for lane in sum {
                *lane = lane.mul_add(a, b);
            }
        }
    }
    black_box(sums);
    2 * 4 * LANES * ROUNDS
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn with_avx512() -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut sums = [_mm512_set1_ps(1.0); LANES];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums);
    2 * 16 * LANES * ROUNDS
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2() -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    // The registers hold no more.
    let mut sums = [_mm256_set1_ps(1.0); 12];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums);
    2 * 8 * 12 * ROUNDS
}

/// GB/s.
pub fn reading() -> f64 {
    let data = vec![1f32; LENGTH];
    let part = LENGTH / rayon::current_num_threads();
    // As many sums at once as there are floats in some cache lines: adding must not be what is waited for.
    let sum = |part: &[f32]| {
        let mut sums = [0f32; 64];
        for line in part.chunks_exact(64) {
            for (sum, value) in sums.iter_mut().zip(line) {
                *sum += value;
            }
        }
        sums.iter().sum::<f32>()
    };
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        let total: f32 = data.par_chunks(part).map(sum).sum();
        black_box(total);
        best = best.min(start.elapsed().as_secs_f64());
    }
    (LENGTH * 4) as f64 / best / 1e9
}
