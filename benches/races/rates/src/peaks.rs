//! Peak rates on all threads: multiply-adds without memory access, and reading memory.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

/// Iterations per thread: enough for the system to distribute the threads over the cores.
const ROUNDS: usize = 40_000_000;
/// Independent accumulators, so that multiply-adds do not wait for each other.
const LANES: usize = 16;
/// Number of floats, larger than all caches: 256 MiB.
const LENGTH: usize = 64 << 20;

/// Returns GFLOP/s.
pub fn multiply_adds() -> f64 {
    let turn = || {
        let start = Instant::now();
        let flops: usize = rayon::broadcast(|_| spin()).iter().sum();
        flops as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    // A thread that was just woken is slower at first.
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

/// Compiled without explicit vector instructions: NEON on aarch64.
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
    // 12 accumulators, limited by the number of registers.
    let mut sums = [_mm256_set1_ps(1.0); 12];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums);
    2 * 8 * 12 * ROUNDS
}

/// Returns GB/s.
pub fn reading() -> f64 {
    let data = vec![1f32; LENGTH];
    let part = LENGTH / rayon::current_num_threads();
    // One accumulator per float in several cache lines, so that additions are not the bottleneck.
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
